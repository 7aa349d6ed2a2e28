"""Reinforcement learning: sample, grade, update."""
