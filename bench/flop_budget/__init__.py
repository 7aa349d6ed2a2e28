"""What a fixed budget of FLOP buys and reaches by its split."""
