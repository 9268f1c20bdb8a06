"""Garbage collection: the inventory of a store, its users, and what can be removed."""
