"""From statistics and a format to a quantized checkpoint."""
