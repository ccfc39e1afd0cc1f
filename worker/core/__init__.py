"""Decides: the pure core. No I/O, no clock, no randomness, so every function can be tried with every input."""
