"""The HTTP server: worker processes behind one socket, an ASGI app in each, Prometheus metrics over all."""
