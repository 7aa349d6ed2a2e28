"""Completions of a batch of prompts, in C++ on CPU and in torch."""
