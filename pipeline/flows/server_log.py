"""What the log of a Prefect server says of its services: which of them fail again and again, and of what."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
"""Given to the server that we start: Prefect's own has no date."""

HEAD = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.\d+ \| (\w+) +\| (\S+) - (.*)")
"""First line of an entry: time, level, logger, message; a traceback may follow."""

LOOP = re.compile(r"\S+ \[[^\]]*\] (\w+)\(")
"""Message of a service that runs in rounds: an arrow, then e.g. `[ 136ms] schedule_deployments(){...}`."""

TRACEBACK = "Traceback (most recent call last):"

REPEATED = 3
WINDOW = timedelta(minutes=5)
"""A service that failed this often in this time fails repeatedly. The scheduler's rounds take 5 s and 1 min;
a server on SQLite that is well, but on a busy host, now and then logs one `database is locked`."""

TAIL_BYTES = 1 << 20
"""More than five minutes of tracebacks of 4 kB, one every 5 s."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One error that a service logged."""

    service: str
    at: datetime
    """The host's local time, without a zone."""
    error: str
    """Type and first line of the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A service that fails repeatedly."""

    service: str
    times: int
    first: Failure
    last: Failure

    @property
    def schedules(self) -> bool:
        """Whether it is one of the scheduler's."""
        return "schedule" in self.service

    def __str__(self) -> str:
        stops = "; no schedule fires" if self.schedules else ""
        since = f"{self.first.at:%H:%M:%S}"
        return f"{self.service} failed {self.times} times since {since}: {self.last.error}{stops}"


def failing_services(log: Path, since: datetime, times: int = REPEATED) -> list[Failing]:
    """Services that failed so often since then according to a log; none where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return failing(failures(text), since, times)


def failing(entries: Iterable[Failure], since: datetime, times: int = REPEATED) -> list[Failing]:
    """The services that failed so often since then, by name."""
    by_service: dict[str, list[Failure]] = {}
    for failure in entries:
        # the log may hold entries of earlier starts
        if failure.at >= since:
            by_service.setdefault(failure.service, []).append(failure)
    return [
        Failing(service=service, times=len(failures), first=failures[0], last=failures[-1])
        for service, failures in sorted(by_service.items())
        if len(failures) >= times
    ]


def failures(text: str) -> Iterator[Failure]:
    """Every entry of level ERROR or CRITICAL, in order."""
    for at, level, logger, message, below in _entries(text):
        if level in ("ERROR", "CRITICAL"):
            loop = LOOP.match(message)
            service = loop[1] if loop else logger.removeprefix("prefect.server.")
            yield Failure(service, datetime.strptime(at, DATE_FORMAT), _error(below) or message)  # noqa: DTZ007 local


def _entries(text: str) -> Iterator[tuple[str, str, str, str, list[str]]]:
    """Time, level, logger and message of each entry, and the lines below it."""
    head: re.Match[str] | None = None
    below: list[str] = []
    for line in text.splitlines():
        match = HEAD.match(line)
        if match is None:
            below.append(line)
            continue
        # lines before the first head belong to an entry that TAIL_BYTES cut
        if head is not None:
            yield head[1], head[2], head[3], head[4], below
        head, below = match, []
    if head is not None:
        yield head[1], head[2], head[3], head[4], below


def _error(below: list[str]) -> str | None:
    """The exception of the last traceback, without its module; None where there is no traceback."""
    # the last: of a chain of exceptions it is the one that reached the service
    starts = [index for index, line in enumerate(below) if line.strip() == TRACEBACK]
    if not starts:
        return None
    # frames are indented, the exception's line is not
    text = next((line for line in below[starts[-1] + 1 :] if line and not line[0].isspace()), None)
    if text is None:
        return None
    kind, _, message = text.partition(": ")
    name = kind.rpartition(".")[2]
    return f"{name}: {message}" if message else name
