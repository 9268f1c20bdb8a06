"""Tensors in safetensors files: reading, writing, casting, looking for values that are not finite."""
