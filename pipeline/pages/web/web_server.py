"""Serves the application until it is stopped."""

import socket
from collections.abc import Callable
from contextlib import closing

import uvicorn

from pipeline.errors import AddressUnusable
from pipeline.pages.web.connections import MOST, Connection
from pipeline.pages.web.registry_view import Reading
from pipeline.pages.web.web_app import application


def serve(
    reading: Reading, token: str | None, address: tuple[str, int], ready: Callable[[str], None]
) -> None:
    """Serves at host and port until Ctrl-C or SIGTERM; tells `ready` the URL once it listens."""
    with closing(listen(*address)) as listening:
        config = uvicorn.Config(
            application(reading, token),
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=5,
            http=Connection,
            ws="none",
            limit_concurrency=MOST,
        )
        host, port = listening.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            return  # uvicorn has finished what was under way


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; an address that is taken or not ours is an AddressUnusable."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as exc:  # a name that no host can have is a UnicodeError
        why = exc.strerror if isinstance(exc, OSError) else "it is not a valid host name"
        raise AddressUnusable(
            f"cannot listen on {host} port {port}: {why}; give another --host or --port"
        ) from None
