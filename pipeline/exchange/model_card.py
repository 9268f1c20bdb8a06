"""The model card of what is pushed: front matter that hubs read, and the engine card's own sections."""

import dataclasses
from pathlib import PurePath
from typing import Any

import yaml

from artifacts.trust.licence import REFERENCE, SPDX, UNSTATED
from artifacts.version import VersionRecord
from pipeline.exchange.pushed_content import Content
from pipeline.pages.card import card_markdown
from pipeline.pages.card.card_content import Card

OF_CHECKPOINT = ("Accuracy", "Where it comes from", "Lineage", "Recipe")
"""Sections that are true of the checkpoint too; the others are the engine's."""

OF_ENGINE = ("Accuracy", "Speed", "What it needs, and its limits", "Where it comes from", "Lineage", "Recipe")
"""Sections for readers without access to the registry."""


def card(content: Content) -> str:
    """The card as Markdown with YAML front matter."""
    front = yaml.safe_dump(front_matter(content), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{body(content)}"


def body(content: Content) -> str:
    """The card without front matter: the facts and words of the engine card."""
    of = Card(record=_public_record(content.record), remarks=content.remarks)
    sections = card_markdown.sections(of)
    if content.part == "checkpoint" and sections["Accuracy"]:
        backend = card_markdown.plain(str(of.record.facts.get("backend")))
        sections["Accuracy"] += f"\n\nScored as the engine ({backend}) that was built from this checkpoint."
    chosen = OF_ENGINE if content.part == "engine" else OF_CHECKPOINT
    return card_markdown.page(of, {title: sections[title] for title in chosen})


def _public_record(record: VersionRecord) -> VersionRecord:
    """The record without the places that files have on the machine that built it."""
    return dataclasses.replace(
        record,
        recipe=_public(record.recipe),
        model=_shortened(record.model),
        source=_public(record.source),
    )


def front_matter(content: Content) -> dict[str, Any]:
    """What the hub indexes: licence, base model, task and tags."""
    record = content.record
    repo = record.source.get("repo")
    base = {"base_model": repo, "base_model_relation": "quantized"} if repo else {}
    return {
        **licence(content.licence),
        **base,
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": ["enginery", "modelopt", *_formats(record)],
    }


def licence(expression: str | None) -> dict[str, Any]:
    """A licence as hubs index it: lower-case names, a list of those to choose from, `other` with its name."""
    if expression in (None, UNSTATED):  # which hubs would take for a licence's name
        return {}
    if " OR " in expression:
        return {"license": [licence(choice)["license"] for choice in expression.split(" OR ")]}
    if expression.startswith(REFERENCE):
        name = expression.removeprefix(REFERENCE)
        return {"license": "other", **({"license_name": name} if name != "other" else {})}
    return {"license": expression.lower() if expression.lower() in SPDX else expression}


def _formats(record: VersionRecord) -> list[str]:
    format_ = record.recipe.get("format", "none")
    names = [format_] if isinstance(format_, str) else [format_["default"], *format_["except"].values()]
    return [name for name in dict.fromkeys(names) if name != "none"]


def _public(value: Any) -> Any:
    """A value without absolute paths."""
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return _shortened(value) if isinstance(value, str) else value


def _shortened(text: str) -> str:
    """The last part of an absolute path; anything else as it is."""
    return PurePath(text).name if PurePath(text).is_absolute() else text
