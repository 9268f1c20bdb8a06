"""From a checkpoint to TensorRT-LLM layout, one file per rank: what goes where, and the streaming copy."""
