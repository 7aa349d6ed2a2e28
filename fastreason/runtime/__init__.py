"""What every part stands on: ranks, files, logs, the machine."""
