"""Versions for other systems, and engines and checkpoints from them."""
