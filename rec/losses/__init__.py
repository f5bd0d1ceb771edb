"""rec/losses."""
