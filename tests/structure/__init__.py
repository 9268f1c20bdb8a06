"""Counts the structure of a checkout on its syntax trees: `python -m tests.structure [ROOT] [--against COMMIT]`."""
