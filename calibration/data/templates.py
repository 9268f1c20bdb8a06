"""Renders chats with untrusted templates in a helper process with limits, see `sandbox.py`."""

import fcntl
import json
import os
import signal
import sys
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

HELPER = Path(__file__).with_name("sandbox.py")


class TemplateRefused(Exception):
    """A template cannot be rendered; the message is verb and object, to follow the template's name."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A chat as text."""

    text: str
    dated: bool
    """Whether the template used today's date."""


class Answer(TypedDict, total=False):
    """The helper's answer: `error` alone, or the other fields of `Rendered`."""

    error: str
    text: str
    dated: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A chat to render."""

    source: str
    """The template's text."""
    messages: Sequence[Mapping[str, Any]]
    date: str
    """Today's date for the template, ISO 8601."""
    values: Mapping[str, Any]
    """Other variables of the template: tools, special tokens."""


@dataclass(slots=True, weakref_slot=True)
class Sandbox:
    """Renders templates one row at a time; the helper starts with the first row and ends with this object.

    Requests may be sent ahead, so that the helper renders while the caller tokenizes earlier answers.
    """

    _helper: "_Helper | None" = None
    _numbers: dict[str, int] = field(default_factory=dict)
    _waiting: deque[tuple[object, int]] = field(default_factory=deque)
    """Unanswered requests in order: their owner, and their size in bytes."""

    @property
    def pid(self) -> int | None:
        """The helper's process; None before it starts."""
        return self._helper.pid if self._helper is not None else None

    def send_ahead(self, request: Request, owner: object) -> bool:
        """Send a request if the pipe has room even while the helper reads nothing; whether it was sent."""
        line = self._line(request)
        helper = self._started()
        # A full pipe would block this process while the helper blocks on its own answers: neither would read.
        if sum(size for _, size in self._waiting) + len(line) > helper.room:
            return False
        self._send(request, line, owner)
        return True

    def sent_for(self, owner: object) -> bool:
        """Whether the latest request that was sent ahead is this owner's."""
        return bool(self._waiting) and self._waiting[-1][0] is owner

    def render(self, request: Request, owner: object = None) -> Rendered:
        """The messages as text; uses a request that was sent ahead for the same owner.

        TemplateRefused where the template fails, or exceeds 5 s of CPU time or 1 GB.
        """
        while self._waiting and (owner is None or self._waiting[0][0] is not owner):
            self._answer()  # sent ahead for a row that is no longer needed
        if not self._waiting:
            self._send(request, self._line(request), owner)
        answer = self._answer()
        if "error" in answer:
            self._numbers.pop(request.source, None)  # the helper may have failed to compile it
            raise TemplateRefused(answer["error"])
        return Rendered(answer["text"], answer["dated"])

    def _line(self, request: Request) -> bytes:
        fields = {"date": request.date, "values": request.values, "messages": request.messages}
        number_ = self._numbers.get(request.source)
        # The text goes once; later requests name it by its number.
        source = {"source": request.source} if number_ is None else {}
        number = len(self._numbers) if number_ is None else number_
        return json.dumps({**fields, **source, "template": number}).encode() + b"\n"

    def _started(self) -> "_Helper":
        if self._helper is None:
            self._helper = _Helper.start()
            # Also when the interpreter ends; a `__del__` may come too late for that.
            weakref.finalize(self, self._helper.end)
        return self._helper

    def _send(self, request: Request, line: bytes, owner: object) -> None:
        self._numbers.setdefault(request.source, len(self._numbers))
        self._waiting.append((owner, len(line)))
        self._started().send(line)

    def _answer(self) -> Answer:
        assert self._helper is not None
        answer = self._helper.answer()
        self._waiting.popleft()
        if answer is not None:
            return answer
        code, self._helper = self._helper.end(), None
        # A new helper knows no template, and requests sent ahead died with the old one.
        self._numbers.clear()
        self._waiting.clear()
        return {"error": _exit_message(code)}


@dataclass(slots=True)
class _Helper:
    """The process that runs templates."""

    pid: int
    requests: BinaryIO
    answers: BinaryIO
    room: int
    """Bytes of requests that fit into the pipe while the helper reads none."""
    code: int | None = None
    """Exit code after its end; negative for a signal."""

    @classmethod
    def start(cls) -> "_Helper":
        """Start the helper; it ends by itself when its input is closed."""
        (child_stdin, request_end), (answer_end, child_stdout) = os.pipe(), os.pipe()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", str(HELPER)],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, child_stdin, 0), (os.POSIX_SPAWN_DUP2, child_stdout, 1)],
        )
        # Else this process holds the helper's ends open, and its death would go unnoticed.
        os.close(child_stdin)
        os.close(child_stdout)
        room = (
            fcntl.fcntl(request_end, fcntl.F_GETPIPE_SZ) // 2
        )  # half: a pipe stores pages, which may be partly filled
        return cls(pid, os.fdopen(request_end, "wb"), os.fdopen(answer_end, "rb"), room)

    def send(self, request: bytes) -> None:
        """Send a request; if the helper has died, its answer will be missing."""
        with suppress(BrokenPipeError):
            self.requests.write(request)
            self.requests.flush()

    def answer(self) -> Answer | None:
        """The next answer; None if the helper died."""
        line = self.answers.readline()
        # A line without its end was cut by the helper's death.
        return json.loads(line) if line.endswith(b"\n") else None

    def end(self) -> int:
        """Kill the helper if it still runs; return its exit code, negative for a signal."""
        if self.code is None:
            self.code = 0
            with suppress(ChildProcessError):  # in a fork of the process that started it
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                if not ended:
                    os.kill(self.pid, signal.SIGKILL)
                    _, status = os.waitpid(self.pid, 0)
                self.code = os.waitstatus_to_exitcode(status)
            with suppress(BrokenPipeError):  # flushing requests that it never read
                self.requests.close()
            self.answers.close()
        return self.code


def _exit_message(code: int) -> str:
    if code == -signal.SIGPROF:
        return "takes more than 5 s"
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"cannot be rendered: the process that runs it ended ({reason})"
