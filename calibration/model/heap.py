"""Returns freed memory to the system at once."""

import ctypes

M_MMAP_THRESHOLD = -3
"""glibc's mallopt option, from malloc.h."""
LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Make glibc return every freed block of a MiB or more to the system; does nothing with another libc.

    By default, glibc raises its threshold after the first large free and keeps such blocks. Streaming a
    checkpoint through tensors of many sizes then leaves hundreds of MB of holes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
