"""Artifact stores: in a directory, in object storage, and in a directory that caches object storage."""
