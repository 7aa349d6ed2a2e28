"""The GPU path on a machine with torch, Triton and nvcc alone: checked, timed, reported; or rehearsed without a GPU."""
