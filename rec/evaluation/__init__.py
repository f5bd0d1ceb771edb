"""rec/evaluation."""
