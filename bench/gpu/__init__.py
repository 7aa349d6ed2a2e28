"""The GPU path on a machine that has only torch, Triton and nvcc: checked, timed and reported, or rehearsed without a GPU."""
