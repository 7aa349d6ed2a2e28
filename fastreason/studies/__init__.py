"""Recipes, their variants and seeds, and the units of work they share."""
