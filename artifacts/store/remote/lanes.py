"""Runs several transfers at a time in bounded memory, with results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

LANES = 8
"""Requests in flight: at most one part of memory each."""


def in_order(calls: Iterable[Callable[[], Result]], lanes: int = LANES) -> Iterator[Result]:
    """Run the calls in `lanes` threads and yield their results in order.

    The next call is taken from `calls` only while fewer than `lanes` results are outstanding, which bounds
    the memory. After the first failure, calls that have not begun are dropped, and running ones awaited.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(lanes) as pool:
        try:
            for call in calls:
                waiting.append(pool.submit(call))
                # Wait for the oldest, even if a later one is ready: results keep their order, and at most
                # `lanes` of them exist.
                if len(waiting) >= lanes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
