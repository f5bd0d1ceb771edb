"""Training data: session tables, their conversion to RequestBatch, the preprocessor, the loader."""
