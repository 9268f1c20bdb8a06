"""Clients that send slowly, read nothing or go away: the real server ends them and serves the others."""

import socket
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from artifacts.registry.registry import Registry
from pipeline.pages.web import connections
from tests.pipeline.pages.web.conftest import TOKEN
from tests.present import present

pytestmark = pytest.mark.slow

LIMIT_S = 1.0
"""In place of 10 s, so that the tests need not wait so long."""

SERVER = """
import sys
from pipeline.pages.web import connections, web_server
from pipeline.pages.web.registry_view import Reading
limit, file, token = float(sys.argv[1]), *sys.argv[2:]
connections.WITHIN_S.update(request=limit, body=limit, answer=limit)
web_server.serve(Reading(file), token, ("127.0.0.1", 0), lambda url: print(url, flush=True))
"""


@pytest.fixture
def port(file: Path, registry: Registry) -> Iterator[int]:
    """Of a server over the registry that has little patience."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(LIMIT_S), str(file), TOKEN], stdout=subprocess.PIPE, text=True
    )
    try:
        yield int(present(child.stdout).readline().rsplit(":", 1)[1])
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


def opened(stack: ExitStack, port: int, text: bytes, receive_bytes: int = 0) -> socket.socket:
    """A connection that has sent so much."""
    made = stack.enter_context(socket.socket())
    if receive_bytes:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.settimeout(30)
    made.connect(("127.0.0.1", port))
    made.sendall(text)
    return made


def healthy(port: int) -> float:
    """Seconds until a request of an ordinary client was answered."""
    before = time.monotonic()
    answer = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=30)
    assert answer.json() == {"status": "ok"}
    return time.monotonic() - before


def ended(made: socket.socket) -> bytes:
    """What came until the server ended the connection."""
    received = b""
    try:
        while piece := made.recv(1 << 16):
            received += piece
    except ConnectionResetError:
        pass
    return received


def test_the_promised_time_is_ten_seconds():
    assert connections.WITHIN_S["request"] == 10


def test_300_half_open_requests_lock_nobody_out_and_are_ended(port: int):
    with ExitStack() as stack:
        half = [opened(stack, port, b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ") for _ in range(300)]
        healthy(port)
        for made in half[-100:]:
            assert ended(made) in (b"", connections.TOO_LATE)
    for _ in range(3):
        healthy(port)


def test_a_request_that_trickles_in_is_ended_in_time(port: int):
    with ExitStack() as stack:
        made = opened(stack, port, b"GET / HTTP/1.1\r\n")
        made.settimeout(0.1)
        before, received = time.monotonic(), b""
        while not received:
            try:
                made.sendall(b"a")
                received = made.recv(1 << 16)
            except TimeoutError:
                assert time.monotonic() - before < 30 * LIMIT_S
        assert received == connections.TOO_LATE
    healthy(port)


def test_a_body_that_does_not_come_and_an_idle_connection_are_ended(port: int):
    head = f"POST /api/v1/promote HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
    with ExitStack() as stack:
        body = opened(stack, port, f"{head}content-length: 100\r\n\r\n{{".encode())
        idle = opened(stack, port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        silent = opened(stack, port, b"")
        assert ended(body) == b""
        assert ended(idle).endswith(b'{"status":"ok"}')
        assert ended(silent) in (b"", connections.TOO_LATE)
    healthy(port)


def test_clients_that_never_read_are_ended(port: int):
    """They ask for more than all buffers hold, again and again, on one connection each."""
    asks = b"GET /api/v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 400
    with ExitStack() as stack:
        deaf = [opened(stack, port, asks, receive_bytes=4096) for _ in range(5)]
        healthy(port)
        time.sleep(3 * LIMIT_S)
        for made in deaf:  # what was on its way comes, and then the end instead of the rest
            assert len(ended(made)) < 400 * 10_000
    healthy(port)


def test_a_house_full_of_idle_connections_has_room_for_another(port: int):
    with (
        httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=None)) as client,
        ExitStack() as stack,
    ):
        for _ in range(connections.MOST + 20):
            opened(stack, port, b"")
        assert client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
