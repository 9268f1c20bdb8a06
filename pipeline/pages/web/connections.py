"""Connections with deadlines: slow or silent clients do not block others."""

import asyncio
from typing import Any, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol

Phase = Literal["request", "body", "answer"]

WITHIN_S: dict[Phase, float] = {"request": 10.0, "body": 10.0, "answer": 60.0}
"""How long it may take until a request's headers, then its body (of a few hundred bytes), then its answer are
through; an idle connection is closed by the server after 5 s."""

MOST = 200
"""Connections at once. The last tenth is for newcomers: for each of them, the connection that
has waited longest for its request is closed."""

TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(H11Protocol):
    """One connection, with a deadline for each phase of a request."""

    _phase: Phase = "request"
    _since = 0.0
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Makes room among the others if need be, and starts the clock."""
        if len(self.connections) >= MOST - MOST // 10:
            _end_longest(self.connections)
        super().connection_made(transport)
        self._start("request")

    def data_received(self, data: bytes) -> None:
        """Starts the clock anew only where a request, or its body, is complete."""
        before = self.cycle
        super().data_received(data)
        if (phase := self._now()) != self._phase or self.cycle is not before:
            self._start(phase)

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        super().on_response_complete()
        self._start(self._now())

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        if self._clock is not None:
            self._clock.cancel()
        super().connection_lost(exc)

    @property
    def waits_since(self) -> float | None:
        """Loop time since which we wait for its request; None while a request is processed."""
        return self._since if self._phase == "request" else None

    def end(self) -> None:
        """Ends it at once, whatever the client does."""
        self._phase = "answer"  # no deadline applies any more
        self.connections.discard(self)
        self.transport.abort()

    def _now(self) -> Phase:
        if self.cycle is None:
            return "request"
        if self.cycle.response_complete:  # its bytes may still be on their way to a slow reader
            return "answer" if self.transport.get_write_buffer_size() else "request"
        return "body" if self.cycle.more_body else "answer"

    def _start(self, phase: Phase) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._phase, self._since = phase, self.loop.time()
        self._clock = self.loop.call_later(WITHIN_S[phase], self._too_late)

    def _too_late(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.write(TOO_LATE)  # into the socket's own buffer, which is empty
        self.end()


def _end_longest(connections: "set[Any]") -> None:
    """Closes the connection that has waited longest for its request, if there is one."""
    waiting = [connection for connection in connections if connection.waits_since is not None]
    if waiting:
        min(waiting, key=lambda connection: connection.waits_since).end()
