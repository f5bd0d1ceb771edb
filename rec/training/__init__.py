"""Training: trainer, checkpoints, evaluation of a trained run."""
