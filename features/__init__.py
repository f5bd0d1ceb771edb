"""Raw logs to session tables, point in time, and the feature store's first snapshot."""
