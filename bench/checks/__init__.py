"""One check or table each."""
