"""features/transforms."""
