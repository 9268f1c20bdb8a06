"""card, serve-registry: a version on one page, and the registry in a browser."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.parameter_types import PATH, PathType

if TYPE_CHECKING:
    from pipeline.pages.web.registry_view import Reading

SUFFIXES = (".md", ".html")

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts that only this machine reaches."""


@click.command()
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.option("-o", "--out", type=PathType(dir_okay=False), help="File to write, .md or .html.")
@click.pass_obj
def card(app: App, reference: str, out: Path | None) -> None:
    """Say everything about a version on one page: as Markdown, or as HTML that needs nothing else.

    Example: enginery card demo/int4_awq_tp2@candidate -o card.html
    """
    if out is not None and out.suffix not in SUFFIXES:
        raise click.BadParameter(f"{out} ends in neither {' nor '.join(SUFFIXES)}", param_hint="--out")
    from pipeline.pages.card import card_markdown, card_page  # jinja2 and SQLAlchemy: not for --help

    found = _reading(app).card(reference)
    if out is None:
        text = card_markdown.card(found)
        app.out.value({"reference": found.record.reference, "markdown": text}, text=text.rstrip("\n"))
        return
    _write(out, card_page.card(found) if out.suffix == ".html" else card_markdown.card(found))
    app.out.value(
        {"reference": found.record.reference, "path": str(out)},
        text=f"{out} is the card of {found.record.reference}",
        short=str(out),
    )


@click.command("serve-registry")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8484, show_default=True,
              help="Port to listen on; 0: any that is free.")  # fmt: skip
@click.option(
    "--token-file",
    type=PATH,
    help="File with the token for changes; default: $ENGINERY_TOKEN; neither: read-only.",
)
@click.pass_obj
def serve_registry(app: App, host: str, port: int, token_file: Path | None) -> None:
    """Show the registry in a browser and as a JSON API, with health and metrics; Ctrl-C stops it.

    Example: enginery serve-registry --port 8484
    """
    from pipeline.pages.web.security import read_token  # FastAPI: not for --help
    from pipeline.pages.web.web_server import serve

    token = read_token(token_file, os.environ.get("ENGINERY_TOKEN"))
    if token is not None and host not in LOOPBACK:
        app.out.warn(f"the token travels unencrypted to {host}; let a proxy in front of it speak TLS")
    writes = "promotion and rollback need the token" if token else "read-only: there is no token"

    def ready(url: str) -> None:
        app.out.value({"url": url, "writes": token is not None}, text=f"{url} is up, {writes}", short=url)
        app.out.flush()

    serve(_reading(app), token, (host, port), ready)


def _reading(app: App) -> "Reading":
    from pipeline.pages.web.registry_view import Reading  # SQLAlchemy: not for --help

    store = app.client.store
    return Reading(app.registry_url or store.registry_url, store, app.announce)


def _write(path: Path, text: str) -> None:
    """The file at once and whole."""
    from artifacts.store.disk import ReportFullDisk, ReportUnwritable  # with the errors

    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with ReportFullDisk(path.parent, str(path)), ReportUnwritable(path.parent):
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
