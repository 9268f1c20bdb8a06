"""Presentations of artifacts and versions: cards, web pages, API."""
