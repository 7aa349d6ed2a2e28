"""Supervised training, and what both kinds of training share: optimizer, checkpoints, budgets."""
