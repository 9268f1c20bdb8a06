"""The card as Markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence

import yaml

from pipeline.pages.card import card_content
from pipeline.pages.card.card_content import Card
from pipeline.units import number, size

SPECIAL = re.compile(r"[\\`*\[\]>|#~!]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
"""Characters that mean something in Markdown; an underscore inside a word does not."""


def plain(value: str) -> str:
    """Text that Markdown shows as it is: on one line, nothing in it has a meaning."""
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    # HTML in Markdown is live, and names and reasons come from users
    return SPECIAL.sub(r"\\\g<0>", line).replace("&", "&amp;").replace("<", "&lt;")


def card(of: Card) -> str:
    """The whole card."""
    return page(of, sections(of))


def page(of: Card, parts: Mapping[str, str]) -> str:
    """The title, what must be known, and these sections; empty ones are left out."""
    record = of.record
    aliases = ", ".join(f"@{alias}" for alias in record.aliases) or "no alias"
    blocks = [
        f"# {plain(record.reference)}",
        f"**{plain(record.verdict)}** · {plain(aliases)} · {plain(card_content.summary(record))}",
        # two spaces at the end keep each notice on its own line
        "\n".join(f"> **{notice.tone}**: {plain(notice.text)}  " for notice in card_content.notices(of)),
        *(f"## {title}\n\n{body}" for title, body in parts.items() if body),
    ]
    return "\n\n".join(part for part in blocks if part) + "\n"


def sections(of: Card) -> dict[str, str]:
    """Title -> what stands below it."""
    record = of.record
    recipe = yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True).strip()
    checks = _table(("metric", "value", "95 % interval", "limit", "outcome"),
                    (row.values() for row in card_content.accuracy(record)))  # fmt: skip
    return {
        "Accuracy": checks,
        "Speed": _speeds(of),
        "Size": _sizes(of),
        "What it needs, and its limits": _pairs(card_content.built_for(record)),
        "Where it comes from": _pairs(card_content.origin(of)),
        "Lineage": _pairs(list(record.lineage.items())),
        "History": _table(("when", "what", "who"), card_content.history(of)),
        "Use it": fenced("\n".join(card_content.commands(record)), "console"),
        "Recipe": fenced(recipe, "yaml"),
    }


def fenced(code: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    # a recipe with a fence in it would end a shorter one
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(plain(str(cell)) for cell in row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines])


def _pairs(pairs: card_content.Pairs) -> str:
    return _table(("what", "value"), pairs)


def _speeds(of: Card) -> str:
    rows = (
        [f"{row['batch_size']:.0f}", *(number(row.get(figure)) for figure in card_content.SPEEDS)]
        for row in card_content.speeds(of.record)
    )
    return _table(("batch", *card_content.SPEEDS.values()), rows)


def _sizes(of: Card) -> str:
    disk = [(label, size(num_bytes)) for label, num_bytes in card_content.on_disk(of)]
    ranks = [
        (f"memory, {rank}", f"{size(weights)} weights, {size(cache)} KV cache")
        for rank, weights, cache in card_content.in_memory(of.record)
    ]
    return _pairs([*disk, *ranks])
