"""Pulled versions: verified directories, leases while they are pulled, following an alias."""
