"""How suites run and what they leave."""
