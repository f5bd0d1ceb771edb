"""The feature store: histories, counters and sessions updated as events arrive, and read as of a timestamp."""
