"""The decoder, its files in Hugging Face's format, its FLOP."""
