"""Themes and tokenizers."""
