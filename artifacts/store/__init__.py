"""Bytes by key: in a directory, in object storage, and in a directory in front of object storage."""
