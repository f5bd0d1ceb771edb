"""features/pipeline."""
