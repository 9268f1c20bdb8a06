"""Callbacks that receive the progress of long operations."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Receives what is done and the total: bytes of a transfer or a survey, artifacts that share contents."""

ItemProgress = Callable[[int, int, str], None]
"""Receives items done, items in all, and the unit of the items."""
