"""Values that a test needs and that may be missing by their type."""

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value; fails the test where it is None."""
    assert value is not None
    return value
