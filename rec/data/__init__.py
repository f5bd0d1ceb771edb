"""rec/data."""
