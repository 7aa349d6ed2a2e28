"""The foundation of all other subpackages: ranks, files, logs, the machine."""
