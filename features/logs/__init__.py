"""features/logs."""
