"""serving/online."""
