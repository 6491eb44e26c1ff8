"""A run: its stages, steps, checkpoints and evaluation."""
