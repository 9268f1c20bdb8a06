"""Who vouches for a version, how it came to be, and under which licence."""
