"""rec/training."""
