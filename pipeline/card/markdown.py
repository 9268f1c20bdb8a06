"""The card as Markdown."""

import re
from collections.abc import Iterable, Sequence

import yaml

from pipeline.card import content
from pipeline.card.content import Card
from pipeline.card.words import number, size

SPECIAL = re.compile(r"[\\`*\[\]<>|#~!&]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
"""Characters that mean something in Markdown; an underscore inside a word does not."""


def plain(value: str) -> str:
    """Text that Markdown shows as it is: on one line, nothing in it has a meaning."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(value.split()))


def card(of: Card) -> str:
    """The whole card."""
    record = of.record
    aliases = ", ".join(f"@{alias}" for alias in record.aliases) or "no alias"
    parts = [
        f"# {plain(record.reference)}",
        f"**{plain(record.verdict)}** · {plain(aliases)} · {plain(content.summary(record))}",
        "\n".join(f"> **{one.tone}**: {plain(one.text)}  " for one in content.notices(of)),
        *_section("Accuracy", _table(("metric", "value", "95 % interval", "limit", "outcome"),
                  (row.values() for row in content.accuracy(record)))),
        *_section("Speed", _speeds(of)),
        *_section("Size", _sizes(of)),
        *_section("What it needs, and its limits", _pairs(content.built_for(record))),
        *_section("Where it comes from", _pairs(content.origin(of))),
        *_section("Lineage", _pairs(list(record.lineage.items()))),
        *_section("History", _table(("when", "what", "who"), content.history(of))),
        *_section("Use it", fenced("\n".join(content.commands(record)), "console")),
        *_section("Recipe", fenced(yaml.safe_dump(record.recipe, sort_keys=False).strip(), "yaml")),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def fenced(code: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _section(title: str, body: str) -> list[str]:
    return [f"## {title}", body] if body else []


def _table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(plain(str(cell)) for cell in row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines])


def _pairs(pairs: content.Pairs) -> str:
    return _table(("what", "value"), pairs)


def _speeds(of: Card) -> str:
    rows = (
        [f"{row['batch_size']:.0f}", *(number(row.get(figure)) for figure in content.SPEEDS)]
        for row in content.speeds(of.record)
    )
    return _table(("batch", *content.SPEEDS.values()), rows)


def _sizes(of: Card) -> str:
    disk = [(what, size(num_bytes)) for what, num_bytes in content.on_disk(of)]
    ranks = [
        (f"memory, {rank}", f"{size(weights)} weights, {size(cache)} KV cache")
        for rank, weights, cache in content.in_memory(of.record)
    ]
    return _pairs([*disk, *ranks])
