"""Many GPUs: a model of a step's time, and what this machine can measure of it."""
