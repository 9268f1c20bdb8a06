"""How much GPU memory something takes, asked of the driver while it runs."""

import threading
from types import TracebackType
from typing import Self

from pipeline.errors import BackendUnavailable
from pipeline.process import process

INTERVAL_S = 0.5
QUERY = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]


def used_bytes() -> int:
    """Memory in use on all GPUs together; BackendUnavailable where the driver does not answer."""
    text = process.capture(QUERY)
    rows = [line.strip() for line in (text or "").splitlines() if line.strip()]
    if not rows or not all(row.isdigit() for row in rows):
        raise BackendUnavailable(
            "nvidia-smi does not tell how much GPU memory is in use; install the driver's tools on PATH"
        )
    return sum(int(row) << 20 for row in rows)  # nvidia-smi says MiB


class Peak:
    """The most GPU memory in use during a block, sampled; what was in use before it is not counted."""

    def __init__(self, before: int) -> None:
        self.before, self.most = before, 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        """Starts sampling."""
        self.most = used_bytes()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Samples once more and ends."""
        self.done.set()
        self.thread.join()
        # After a failure, an error of this query would hide the cause.
        if kind is None:
            self.most = max(self.most, used_bytes())

    @property
    def bytes(self) -> int:
        """The peak, less what was in use before."""
        return max(0, self.most - self.before)

    def _sample(self) -> None:
        while not self.done.wait(INTERVAL_S):
            self.most = max(self.most, used_bytes())
