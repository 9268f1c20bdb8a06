"""card: everything about a version on one page."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import PathType

if TYPE_CHECKING:
    from pipeline.pages.web.registry_view import Reading

SUFFIXES = (".md", ".html")


@click.command()
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.option("-o", "--out", type=PathType(dir_okay=False), help="File to write, .md or .html.")
@click.pass_obj
def card(app: App, reference: str, out: Path | None) -> None:
    """Write everything about a version on one page: Markdown, or self-contained HTML.

    Example: enginery card demo/int4_awq_tp2@candidate -o card.html
    """
    if out is not None and out.suffix not in SUFFIXES:
        raise click.BadParameter(f"{out} ends in neither {' nor '.join(SUFFIXES)}", param_hint="--out")
    from pipeline.pages.card import card_markdown, card_page  # jinja2 and SQLAlchemy: not for --help

    content = read_registry(app).card(reference)
    if out is None:
        text = card_markdown.card(content)
        app.out.value({"reference": content.record.reference, "markdown": text}, text=text.rstrip("\n"))
        return
    _write(out, card_page.card(content) if out.suffix == ".html" else card_markdown.card(content))
    app.out.value(
        {"reference": content.record.reference, "path": str(out)},
        text=f"{out} is the card of {content.record.reference}",
        short=str(out),
    )


def read_registry(app: App) -> "Reading":
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
