"""Triton's model repository for TensorRT-LLM engines: the tensors of each model, and the configurations."""
