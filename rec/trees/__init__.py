"""Boosted trees: the columns they read, their nodes as arrays, LightGBM's text model."""
