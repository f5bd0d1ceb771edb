"""Raw logs to point-in-time session tables, and the feature store's first snapshot."""
