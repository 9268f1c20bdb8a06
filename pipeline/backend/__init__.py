"""What the pipeline asks of an engine backend, and what a loaded engine can do."""
