"""The command line: what a command takes and what it prints."""
