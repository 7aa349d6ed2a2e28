"""Machine code, traffic and times of every kernel."""
