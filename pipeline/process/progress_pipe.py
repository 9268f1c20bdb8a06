"""How a child process reports progress to its parent: JSON lines in a pipe."""

import json
import os
import time
from typing import Any

MIN_INTERVAL_S = 0.1


class ProgressPipe:
    """Writes progress as JSON lines to the parent, at most ten a second, the last one always."""

    def __init__(self, fd: int) -> None:
        self.fd, self.sent_at = fd, 0.0

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Reports that `done` of `total` units are finished."""
        now = time.monotonic()
        if done < total and now - self.sent_at < MIN_INTERVAL_S:
            return
        self.sent_at = now
        self.send({"done": int(done), "total": int(total), "unit": unit})

    def text(self, piece: str) -> None:
        """Streams a piece of generated text."""
        self.send({"text": piece})

    def send(self, event: dict[str, Any]) -> None:
        """Writes one event."""
        os.write(self.fd, json.dumps(event).encode() + b"\n")
