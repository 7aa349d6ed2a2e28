"""Verdicts of completions, kinds of failure, rewards."""
