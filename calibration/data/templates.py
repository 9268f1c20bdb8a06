"""Renders chats with templates that nobody vouches for: in a helper process with limits, see `sandbox.py`."""

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


@dataclass(frozen=True, slots=True)
class Request:
    """A chat to render."""

    source: str
    """The template's text."""
    messages: Sequence[Mapping[str, Any]]
    date: str
    """What the template takes for today, ISO 8601."""
    values: Mapping[str, Any]
    """What it is told besides: tools, special tokens."""


@dataclass(slots=True, weakref_slot=True)
class Sandbox:
    """Renders templates one row at a time; the helper starts with the first, and ends with this object.

    Requests may be sent ahead, so that the helper works while its answers are tokenized.
    """

    _helper: "_Helper | None" = None
    _numbers: dict[str, int] = field(default_factory=dict)
    _waiting: deque[tuple[object, int]] = field(default_factory=deque)
    """What is not answered yet, in order: for whom it was sent, and its bytes."""

    @property
    def pid(self) -> int | None:
        """The helper's process; None before it starts."""
        return self._helper.pid if self._helper is not None else None

    def send_ahead(self, request: Request, owner: object) -> bool:
        """Sends a request if the pipe has room for it, whatever the helper does meanwhile; else says no."""
        line = self._line(request)
        helper = self._started()
        if sum(size for _, size in self._waiting) + len(line) > helper.room:
            return False
        self._send(request, line, owner)
        return True

    def sent_for(self, owner: object) -> bool:
        """Whether the last request that was sent ahead is this one's."""
        return bool(self._waiting) and self._waiting[-1][0] is owner

    def render(self, request: Request, owner: object = None) -> Rendered:
        """The messages as text; answers what was sent ahead for the same object, if it was.

        Raises TemplateRefused for whatever the template does not do within 5 s of CPU time and 1 GB.
        """
        while self._waiting and (owner is None or self._waiting[0][0] is not owner):
            self._answer()  # sent for a row that nobody wants any more
        if not self._waiting:
            self._send(request, self._line(request), owner)
        answer = self._answer()
        if "error" in answer:
            self._numbers.pop(request.source, None)  # the helper may not have it
            raise TemplateRefused(answer["error"])
        return Rendered(answer["text"], answer["dated"])

    def _line(self, request: Request) -> bytes:
        fields = {"date": request.date, "values": request.values, "messages": request.messages}
        number_ = self._numbers.get(request.source)
        source = {"source": request.source} if number_ is None else {}
        number = len(self._numbers) if number_ is None else number_
        return json.dumps({**fields, **source, "template": number}).encode() + b"\n"

    def _started(self) -> "_Helper":
        if self._helper is None:
            self._helper = _Helper.start()
            weakref.finalize(self, self._helper.end)
        return self._helper

    def _send(self, request: Request, line: bytes, owner: object) -> None:
        self._numbers.setdefault(request.source, len(self._numbers))
        self._waiting.append((owner, len(line)))
        self._started().send(line)

    def _answer(self) -> dict[str, Any]:
        assert self._helper is not None
        answer = self._helper.answer()
        self._waiting.popleft()
        if answer is not None:
            return answer
        code, self._helper = self._helper.end(), None
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
    """Bytes of requests that surely fit into the pipe while the helper reads none."""
    code: int | None = None
    """Exit code, once it has ended; negative for a signal."""

    @classmethod
    def start(cls) -> "_Helper":
        """Starts the helper; it ends by itself when nobody can send requests any more."""
        (child_stdin, request_end), (answer_end, child_stdout) = os.pipe(), os.pipe()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", str(HELPER)],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, child_stdin, 0), (os.POSIX_SPAWN_DUP2, child_stdout, 1)],
        )
        os.close(child_stdin)
        os.close(child_stdout)
        room = fcntl.fcntl(request_end, fcntl.F_GETPIPE_SZ) // 2  # a page may be half full
        return cls(pid, os.fdopen(request_end, "wb"), os.fdopen(answer_end, "rb"), room)

    def send(self, request: bytes) -> None:
        """Sends a request; a helper that died says so by its missing answer."""
        with suppress(BrokenPipeError):
            self.requests.write(request)
            self.requests.flush()

    def answer(self) -> dict[str, Any] | None:
        """The next answer; None where the helper died of the request."""
        line = self.answers.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def end(self) -> int:
        """Ends the helper, whatever it is at; returns its exit code, negative for a signal."""
        if self.code is None:
            self.code = 0
            with suppress(ChildProcessError):  # in a fork of the process that started it
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                if not ended:
                    os.kill(self.pid, signal.SIGKILL)
                    _, status = os.waitpid(self.pid, 0)
                self.code = os.waitstatus_to_exitcode(status)
            with suppress(BrokenPipeError):  # what it never read
                self.requests.close()
            self.answers.close()
        return self.code


def _exit_message(code: int) -> str:
    if code == -signal.SIGPROF:
        return "takes more than 5 s"
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"cannot be rendered: the process that runs it ended ({reason})"
