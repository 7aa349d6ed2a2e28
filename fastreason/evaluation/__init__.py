"""pass@k of a model or of files of completions."""
