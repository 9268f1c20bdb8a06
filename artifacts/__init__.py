"""Where built things live: digests, manifests, the store and the registry."""
