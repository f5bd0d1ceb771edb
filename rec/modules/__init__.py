"""rec/modules."""
