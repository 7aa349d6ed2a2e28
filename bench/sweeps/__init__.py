"""Time against size, context, batch and threads: the plots of docs/benchmarks.md."""
