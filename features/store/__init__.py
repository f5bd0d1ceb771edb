"""The feature store: what features need of the past, kept as events arrive, and read as of a moment."""
