"""Pages of docs/ from what was measured."""
