"""What quantization costs each linear, in every format."""
