"""Which versions suit a host and a request, and how two of them differ; pure."""
