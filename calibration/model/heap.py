"""Keeps the process's memory close to what it holds."""

import ctypes

M_MMAP_THRESHOLD = -3
"""glibc's mallopt option, from malloc.h."""
LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Makes glibc give every block of a MiB or more back to the system when it is freed.

    By default it learns from the first large block that is freed to keep such blocks, and streaming a
    checkpoint through tensors of many sizes then leaves hundreds of MB of holes. Elsewhere it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
