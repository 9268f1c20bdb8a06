"""A proxy between a client and an HTTP server, which answers some requests wrongly."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler", "Request"], None]
"""What to do in place of the server."""

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


@dataclass(frozen=True)
class Request:
    """What the client asked."""

    method: str
    path: str
    body: bytes


@dataclass
class Fault:
    """An answer for the next requests that match."""

    method: str
    part: str
    """What the path contains."""
    answer: Answer
    times: int
    seen: int = 0


@dataclass
class Proxy:
    """What passes, and what does not."""

    target: int
    address: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    """Method, path and body bytes sent of every request, in the order they came."""
    received: list[tuple[str, str, int]] = field(default_factory=list)
    """The same with body bytes of the answers that came from the server."""
    latency_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, method: str, part: str, answer: Answer, times: int = 1) -> Fault:
        """The next `times` requests with such a method and path are answered so."""
        fault = Fault(method, part, answer, times)
        self.faults.append(fault)
        return fault

    def taken(self, request: Request) -> Answer | None:
        """The answer that a fault has for the request."""
        with self.lock:
            self.requests.append((request.method, request.path, len(request.body)))
            for fault in self.faults:
                if fault.method == request.method and fault.part in request.path and fault.seen < fault.times:
                    fault.seen += 1
                    return fault.answer
        return None

    def sent(self, method: str, part: str = "") -> list[str]:
        """Paths of the requests with such a method and path."""
        with self.lock:
            return [path for seen, path, _ in self.requests if seen == method and part in path]


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is the base's
        """Nothing: tests look at `requests`."""

    def relay(self) -> None:
        """Passes the request on, unless a fault takes it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, body)
        answer = self.proxy.taken(request)
        time.sleep(self.proxy.latency_s)
        (answer or passed)(self, request)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = relay  # noqa: N815 names of the base

    def ask(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the server's own answer."""
        # the client signed the name of the proxy: the server must see it as the host
        link = http.client.HTTPConnection("127.0.0.1", self.proxy.target, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            link.request(request.method, request.path, body=request.body, headers=headers)
            found = link.getresponse()
            data = found.read()
            kept = {name: value for name, value in found.getheaders() if name.lower() not in HOP}
        finally:
            link.close()
        with self.proxy.lock:
            self.proxy.received.append((request.method, request.path, len(data)))
        return found.status, kept, data

    def reply(self, status: int, headers: dict[str, str], body: bytes, *, length: int | None = None) -> None:
        """Answers; `length` is what is promised of the body."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "date", "server"):
                self.send_header(name, value)
        if self.command == "HEAD":
            self.send_header("Content-Length", headers.get("Content-Length", "0"))
        elif status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drop(self) -> None:
        """Ends the connection with a reset."""
        self.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()


def passed(handler: Handler, request: Request) -> None:
    """What the server says."""
    handler.reply(*handler.ask(request))


def status(code: int, **headers: str) -> Answer:
    """An error in place of the server's answer."""

    def answer(handler: Handler, request: Request) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.reply(code, named, b"<Error><Code>Injected</Code></Error>")

    return answer


def truncated(keep: int) -> Answer:
    """The first bytes of the answer, which promised more, and then the end of the connection."""

    def answer(handler: Handler, request: Request) -> None:
        code, headers, body = handler.ask(request)
        handler.reply(code, headers, body[:keep], length=len(body))
        handler.wfile.flush()
        handler.close_connection = True

    return answer


def shortened(keep: int) -> Answer:
    """The first bytes of the answer, as if they were all."""

    def answer(handler: Handler, request: Request) -> None:
        code, headers, body = handler.ask(request)
        handler.reply(code, {n: v for n, v in headers.items() if n.lower() != "etag"}, body[:keep])

    return answer


def garbled(handler: Handler, request: Request) -> None:
    """The answer with one bit turned."""
    code, headers, body = handler.ask(request)
    handler.reply(code, headers, bytes([body[0] ^ 1]) + body[1:])


def stalled(seconds: float, keep: int = 0) -> Answer:
    """The first bytes of the answer, then nothing for a while, then the end of the connection."""

    def answer(handler: Handler, request: Request) -> None:
        code, headers, body = handler.ask(request)
        handler.reply(code, headers, body[:keep], length=len(body))
        handler.wfile.flush()
        time.sleep(seconds)
        handler.drop()

    return answer


def reset(handler: Handler, request: Request) -> None:
    """No answer: the connection is reset, and the server never saw the request."""
    handler.drop()


def lost(handler: Handler, request: Request) -> None:
    """The server does what it was asked, and its answer is lost."""
    handler.ask(request)
    handler.drop()


@contextmanager
def proxying(port: int) -> Iterator[Proxy]:
    """A proxy before the server at a port of this machine, until the block ends."""
    proxy = Proxy(target=port)
    kind = type("Relay", (Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # clients die here
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
