"""One step of a plan, and making its artifact exist."""
