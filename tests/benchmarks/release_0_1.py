"""The 0.1 that benchmarks and the figures of structure compare with."""

COMMIT = "793e4523323747be7ea246308f640cfd416f576f"
"""The last commit of 0.1: its code is as issue 12 found it."""
