"""Records the statistics of a model's linears for all formats in one pass over the calibration set."""
