"""A published engine as a server sees it: what is read from it, and how an export is written."""
