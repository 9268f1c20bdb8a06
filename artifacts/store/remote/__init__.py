"""Stores in object storage: S3-compatible, Google Cloud Storage and Azure, through obstore."""
