"""The source model as calibration reads it, and checkpoints as it writes them."""
