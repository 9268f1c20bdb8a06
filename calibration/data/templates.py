"""Renders chats with templates that nobody vouches for: in a helper process with limits, see `sandbox.py`."""

import json
import os
import signal
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

HELPER = Path(__file__).with_name("sandbox.py")


class TemplateRefused(Exception):
    """A template cannot be rendered; the message is a verb and its object, for the template's name."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A chat as text."""

    text: str
    dated: bool
    """The template asked for today's date."""


@dataclass(slots=True, weakref_slot=True)
class Sandbox:
    """Renders templates one row at a time; the helper starts with the first, and ends with this object."""

    _helper: "_Helper | None" = None
    _numbers: dict[str, int] = field(default_factory=dict)

    @property
    def pid(self) -> int | None:
        """The helper's process; None before it starts."""
        return self._helper.pid if self._helper is not None else None

    def render(
        self, source: str, messages: Sequence[Mapping[str, Any]], date: str, values: Mapping[str, Any]
    ) -> Rendered:
        """The messages as text; `date` is what the template takes for today, ISO 8601.

        Raises TemplateRefused for whatever the template does not do within 5 s of CPU time and 1 GB.
        """
        request: dict[str, Any] = {"date": date, "values": values, "messages": messages}
        if self._helper is None:
            self._helper, self._numbers = _Helper.start(), {}
            weakref.finalize(self, self._helper.end)
        if source not in self._numbers:
            self._numbers[source] = len(self._numbers)
            request["source"] = source
        request["template"] = self._numbers[source]
        answer = self._helper.ask(json.dumps(request).encode() + b"\n")
        if answer is None:
            code, self._helper = self._helper.end(), None
            raise TemplateRefused(_ended(code))
        if "error" in answer:
            if "source" in request:
                del self._numbers[source]
            raise TemplateRefused(answer["error"])
        return Rendered(answer["text"], answer["dated"])


@dataclass(frozen=True, slots=True)
class _Helper:
    """The process that runs templates."""

    pid: int
    requests: BinaryIO
    answers: BinaryIO

    @classmethod
    def start(cls) -> "_Helper":
        """Starts the helper; it ends by itself when nobody can send requests any more."""
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", str(HELPER)],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs_in, 0), (os.POSIX_SPAWN_DUP2, theirs_out, 1)],
        )
        os.close(theirs_in)
        os.close(theirs_out)
        return cls(pid, os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb"))

    def ask(self, request: bytes) -> dict[str, Any] | None:
        """The answer; None where the helper died of the request."""
        try:
            self.requests.write(request)
            self.requests.flush()
        except BrokenPipeError:
            return None
        line = self.answers.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def end(self) -> int:
        """Ends the helper; returns its exit code, negative for a signal."""
        with suppress(BrokenPipeError):  # what it never read
            self.requests.close()
        self.answers.close()
        with suppress(ChildProcessError):
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return 0


def _ended(code: int) -> str:
    if code == -signal.SIGPROF:
        return "takes more than 5 s"
    what = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"cannot be rendered: the process that runs it ended ({what})"
