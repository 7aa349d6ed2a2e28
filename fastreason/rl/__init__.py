"""Reinforcement learning: sample, score, update."""
