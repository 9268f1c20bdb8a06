"""The card as HTML: a part for other pages, and a file that needs nothing else."""

from base64 import b64encode
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.pages.card import card_content, card_plots
from pipeline.pages.card.card_content import Card
from pipeline.units import moment, number, size

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"


@cache
def style() -> str:
    """The style sheet of cards and of the registry's pages."""
    return (HERE / "style.css").read_text()


def policy() -> str:
    """What the file may load: its own style and nothing else, from nowhere."""
    # the hash of the very text inside <style>: any change of it needs a new one
    allowed = b64encode(sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"


def environment(*folders: Path) -> Environment:
    """Templates that escape every value, and raise for an undefined name."""
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, size=size, moment=moment)
    return environment


@cache
def _templates() -> Environment:
    return environment()


def both(draw: Callable[[float], str]) -> Markup:
    """A picture for desks and one for phones, of which the style shows one; nothing where there is none."""
    drawings = [
        (css, draw(width)) for css, width in (("desk", card_plots.WIDE), ("phone", card_plots.NARROW))
    ]
    return Markup("".join(f'<div class="{css}">{drawn}</div>' for css, drawn in drawings if drawn))


def body(of: Card) -> Markup:
    """The card without the page around it."""
    record = of.record
    # the engine stands out; what it is compared with has the colour of series 2
    disk = [
        (label, num_bytes, 0 if label == "engine" else 2) for label, num_bytes in card_content.on_disk(of)
    ]
    text = _templates().get_template("card_body.html").render(
        card=of,
        record=record,
        content=card_content,
        # safe: svg.py escapes every text
        accuracy=[Markup(panel) for panel in card_plots.accuracy([record])],
        throughput=both(lambda width: card_plots.throughput([record], width)),
        disk=both(lambda width: card_plots.bars(disk, width)),
        memory=both(lambda width: card_plots.memory(record, width)),
        recipe=yaml.safe_dump(record.recipe, sort_keys=False),
    )  # fmt: skip
    return Markup(text)


def card(of: Card) -> str:
    """The card as one file, which loads nothing."""
    page = _templates().get_template("card_page.html")
    return page.render(
        reference=of.record.reference,
        body=body(of),
        style=Markup(style()),
        policy=policy(),
    )
