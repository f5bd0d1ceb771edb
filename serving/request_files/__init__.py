"""Batch scoring of files of requests: read as the endpoint reads them, and what cannot be read goes into quarantine."""
