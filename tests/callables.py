"""Types of the functions that shared fixtures return, so that their calls are checked."""

import subprocess  # noqa: TID251 the type of a finished program
from pathlib import Path
from typing import Protocol

Finished = subprocess.CompletedProcess[str]


class Cli(Protocol):
    """Runs `enginery ARGS` as a shell would; returns the finished process."""

    def __call__(self, *args: str | Path, timeout: float = ..., **env: str) -> Finished: ...


class Ask(Protocol):
    """Runs a command in this process; returns its exit code, stdout and stderr."""

    def __call__(self, *args: str) -> tuple[int, str, str]: ...
