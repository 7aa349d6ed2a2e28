"""Supervised training, and the optimizer, checkpoints and budgets that all stages share."""
