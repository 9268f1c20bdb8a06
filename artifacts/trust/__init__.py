"""Signatures, provenance and licences of versions."""
