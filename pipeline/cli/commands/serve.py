"""registry serve: the registry as web pages and a JSON API."""

import os
from pathlib import Path

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import PATH
from pipeline.cli.commands.card import read_registry

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts that only this machine reaches."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8484, show_default=True,
              help="Port to listen on; 0: any that is free.")  # fmt: skip
@click.option(
    "--token-file",
    type=PATH,
    help="File with the token for changes; default: $ENGINERY_TOKEN; neither: read-only.",
)
@click.pass_obj
def serve(app: App, host: str, port: int, token_file: Path | None) -> None:
    """Serve the registry as web pages and a JSON API, with health and metrics; Ctrl-C stops it.

    Example: enginery registry serve --port 8484
    """
    from pipeline.pages.web import web_server  # FastAPI: not for --help
    from pipeline.pages.web.security import read_token

    token = read_token(token_file, os.environ.get("ENGINERY_TOKEN"))
    if token is not None and host not in LOOPBACK:
        app.out.warn(f"the token travels unencrypted to {host}; put a TLS proxy in front of it")
    writes = "promotion and rollback need the token" if token else "read-only: there is no token"

    def ready(url: str) -> None:
        app.out.value({"url": url, "writes": token is not None}, text=f"{url} is up, {writes}", short=url)
        # at once: the command goes on until it is stopped
        app.out.flush()

    web_server.serve(read_registry(app), token, (host, port), ready)
