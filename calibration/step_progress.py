"""The callback that receives the progress of calibration steps."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Receives what is done, the total, and their unit, e.g. `tokens`."""
