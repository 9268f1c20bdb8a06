"""Checkpoints and datasets: from the hub or a directory to an own copy in the store."""
