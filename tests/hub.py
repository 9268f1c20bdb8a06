"""A small hub: a real HTTP server that speaks what downloads use of the protocol, and misbehaves."""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "3f1c9a7be2d04586a1b2c3d4e5f60718293a4b5c"
REPO = "acme/tiny"
LFS_SUFFIXES = (".safetensors", ".bin", ".model", ".parquet")

Fault = Callable[["Handler", bytes, int], None]
"""Answers a request for a file in place of the server: handler, the file's bytes, first byte asked for."""


@dataclass
class Hub:
    """What the server serves, how it misbehaves, and what was asked of it."""

    files: dict[str, bytes]
    address: str = ""
    commit: str = COMMIT
    """Commit that the server claims to answer for."""
    head: str = COMMIT
    """Newest commit of the default branch."""
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    """File name, or `api` -> what to do instead at the next requests, in turn."""
    requests: Counter[str] = field(default_factory=Counter)
    """Requests by file name, and `api`."""
    sent: Counter[str] = field(default_factory=Counter)
    """Body bytes by file name."""
    ranges: list[tuple[str, int]] = field(default_factory=list)
    """File name and first byte of each request with a range."""
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Authorization header of each request."""
    redirect: bool = True
    """Large files are answered by a redirect, as the hub does."""
    ignore_ranges: bool = False

    def info(self) -> dict[str, Any]:
        """The answer of the model API, with blobs."""
        return {"id": REPO, "modelId": REPO, "sha": self.commit, "private": False, "tags": [],
                "downloads": 0, "likes": 0,
                "siblings": [self.sibling(name, data) for name, data in self.files.items()]}  # fmt: skip

    def tree(self) -> list[dict[str, Any]]:
        """The answer of the API that lists a commit's files."""
        return [{"type": "file", "path": name, "size": len(data), "oid": git_blob(data)}
                for name, data in self.files.items()]  # fmt: skip

    @staticmethod
    def sibling(name: str, data: bytes) -> dict[str, Any]:
        """One file as the model API lists it: large ones with sha256, all with a git blob id."""
        entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_blob(data)}
        if name.endswith(LFS_SUFFIXES):
            sha = hashlib.sha256(data).hexdigest()
            entry |= {
                "blobId": git_blob(sha.encode()),
                "lfs": {"sha256": sha, "size": len(data), "pointerSize": 134},
            }
        return entry


def git_blob(data: bytes) -> str:
    """The id that git gives to these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Keeps quiet."""

    def do_GET(self) -> None:
        """Routes the model API, files and the place that large files are redirected to."""
        path = unquote(urlsplit(self.path).path)
        self.hub.tokens.append((path, self.headers.get("Authorization")))
        if path == f"/api/models/{REPO}":  # the newest commit
            self.answer(200, json.dumps({**self.hub.info(), "sha": self.hub.head}).encode(), {})
        elif path in (f"/api/{kind}/{REPO}/revision/{COMMIT}" for kind in ("models", "datasets")):
            self.hub.requests["api"] += 1
            if self.hub.faults["api"]:
                self.hub.faults["api"].pop(0)(self, b"", 0)
            else:
                self.answer(200, json.dumps(self.hub.info()).encode(), {"Content-Type": "application/json"})
        elif path == f"/api/models/{REPO}/tree/{COMMIT}":
            self.answer(200, json.dumps(self.hub.tree()).encode(), {"Content-Type": "application/json"})
        elif match := re.fullmatch(rf"(?:/datasets)?/{REPO}/resolve/{COMMIT}/(.+)", path):
            self.resolve(match[1])
        elif match := re.fullmatch(r"/storage/(.+)", path):
            self.file(match[1])
        else:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        """Says size, digest and commit of a file, which huggingface_hub asks before it downloads one."""
        name = unquote(urlsplit(self.path).path).partition(f"/resolve/{COMMIT}/")[2]
        if name not in self.hub.files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = self.hub.files[name]
        etag = {"ETag": f'"{git_blob(data)}"', "X-Repo-Commit": self.hub.commit}
        self.answer(200, b"", etag, claim=len(data))

    def resolve(self, name: str) -> None:
        """Answers for a file of the commit."""
        if name not in self.hub.files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif self.hub.redirect and name.endswith(LFS_SUFFIXES):
            port = self.server.server_port  # another host name: the token must not travel there
            self.answer(302, b"", {"Location": f"http://localhost:{port}/storage/{name}?signature=secret",
                                   "X-Repo-Commit": self.hub.commit})  # fmt: skip
        else:
            self.file(name)

    def file(self, name: str) -> None:
        """Sends a file or the range asked for, unless a fault is due."""
        data, start, end = self.hub.files[name], 0, None
        self.hub.requests[name] += 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not self.hub.ignore_ranges:
            start, end = int(asked[1]), int(asked[2]) + 1 if asked[2] else None
            self.hub.ranges.append((name, start))
        if self.hub.faults[name]:
            self.hub.faults[name].pop(0)(self, data, start)
        else:
            self.send_part(name, data, start, end)

    def send_part(self, name: str, data: bytes, start: int, end: int | None) -> None:
        """Sends bytes `start` to `end`, as a whole file or as a range."""
        body, status, headers = data[start:end], 200, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if start or end is not None:
            status, headers["Content-Range"] = 206, f"bytes {start}-{start + len(body) - 1}/{len(data)}"
        self.answer(status, body, headers)
        self.hub.sent[name] += len(body)

    def answer(self, status: int, body: bytes, headers: dict[str, str], *, claim: int | None = None) -> None:
        """Sends an answer whose Content-Length is `claim`, or true."""
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body) if claim is None else claim)} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # the client has read all it wanted


def status(code: int, **headers: str) -> Fault:
    """Answers with an error."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler, data, start: handler.answer(code, b"", named)


def _part(handler: Handler, data: bytes, start: int, count: int) -> tuple[int, bytes, dict[str, str]]:
    span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
    handler.hub.sent["faulty"] += count
    return (206 if start else 200), data[start : start + count], span


def drop_after(count: int, *, pause_s: float = 0, reset: bool = False) -> Fault:
    """Announces everything that is left, sends `count` bytes, pauses, and closes or resets the connection."""

    def fault(handler: Handler, data: bytes, start: int) -> None:
        code, body, span = _part(handler, data, start, count)
        handler.answer(code, body, span, claim=len(data) - start)
        handler.wfile.flush()
        handler.close_connection = True
        time.sleep(pause_s)
        if reset:
            time.sleep(0.2)  # lets the client read first: a reset discards what it has not
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()

    return fault


def truncate_to(count: int) -> Fault:
    """Sends `count` bytes and says that this is all."""

    def fault(handler: Handler, data: bytes, start: int) -> None:
        handler.answer(*_part(handler, data, start, count))

    return fault


def garble(handler: Handler, data: bytes, start: int) -> None:
    """Sends as many bytes as asked for, one of them wrong."""
    handler.answer(200, bytes([data[0] ^ 1]) + data[1:], {})


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    """Serves files as commit COMMIT of REPO on a free port."""
    hub = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # resets make its threads fail
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
