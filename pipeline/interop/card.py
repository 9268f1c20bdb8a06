"""The model card of a quantized checkpoint: front matter that hubs read, and what people ask first."""

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import yaml

from artifacts.licence import REFERENCE, SPDX
from artifacts.version import Metric, VersionRecord
from pipeline.interop.content import Content

ACCURACY = ("perplexity_ratio", "kl", "top1_agreement")
"""Metrics of the gate; those of speed are the engine's, not the checkpoint's."""


def card(what: Content) -> str:
    """The card as Markdown with YAML front matter."""
    record = what.record
    parts = [
        f"---\n{yaml.safe_dump(front_matter(what), sort_keys=False, allow_unicode=True)}---\n",
        f"# {_plain(record.name)}, version {record.number}\n",
        _introduction(record),
        "## Accuracy\n",
        _accuracy(record),
        "## How it was made\n",
        _code(yaml.safe_dump(_public(record.recipe), sort_keys=False, allow_unicode=True)),
        _lineage(record),
    ]
    return "\n".join(parts)


def front_matter(what: Content) -> dict[str, Any]:
    """What the hub indexes: licence, base model, task and tags."""
    record = what.record
    repo = record.source.get("repo")
    base = {"base_model": repo, "base_model_relation": "quantized"} if repo else {}
    return {
        **licence(what.licence),
        **base,
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": ["enginery", "modelopt", *_formats(record)],
    }


def licence(said: str | None) -> dict[str, Any]:
    """A licence as hubs index it: lower-case names, a list of those to choose from, `other` with its name."""
    if said is None:
        return {}
    if " OR " in said:
        return {"license": [licence(one)["license"] for one in said.split(" OR ")]}
    if said.startswith(REFERENCE):
        name = said.removeprefix(REFERENCE)
        return {"license": "other", **({"license_name": name} if name != "other" else {})}
    return {"license": said.lower() if said.lower() in SPDX else said}


def _formats(record: VersionRecord) -> list[str]:
    said = record.recipe.get("format", "none")
    names = [said] if isinstance(said, str) else [said["default"], *said["except"].values()]
    return [name for name in dict.fromkeys(names) if name != "none"]


def _introduction(record: VersionRecord) -> str:
    origin = record.source.get("repo") or _shortened(record.model) or "a source that was not recorded"
    revision = record.source.get("revision")
    at = f" at commit `{_plain(revision)}`" if revision else ""
    formats = ", ".join(_formats(record)) or "none: the weights are those of the source"
    kept = record.facts.get("kv_cache", "auto")
    return (
        f"Made from {_plain(origin)}{at}.\n\n"
        f"- Quantization: {_plain(formats)}\n- KV cache: {_plain(kept)}\n- Verdict of its gate: "
        f"{_plain(record.verdict)}\n- Published: {record.published_at:%Y-%m-%d %H:%M} UTC, "
        f"by {_plain(record.published_by)}\n"
    )


def _accuracy(record: VersionRecord) -> str:
    measured = [metric for metric in record.metrics if metric.name in ACCURACY]
    if not measured:
        return "Nothing was measured.\n"
    limits = {check.get("metric"): check.get("limit") for check in record.checks}
    rows = [(m.name, f"{m.value:.4g}", _interval(m), _limit(limits.get(m.name))) for m in measured]
    return (
        "Against the source model on the gate's data, with 95 % intervals; it was scored as the engine "
        f"{_plain(record.facts.get('backend'))} that was built from it.\n\n"
        + _table(("metric", "value", "interval", "limit"), rows)
    )


def _interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return "-"
    return f"{metric.low:.4g} to {metric.high:.4g}"


def _limit(limit: Any) -> str:
    return "-" if limit is None else str(limit)


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(_plain(cell) for cell in line) + " |\n" for line in lines)


def _lineage(record: VersionRecord) -> str:
    rows = [(kind, f"`{key}`") for kind, key in record.lineage.items()]
    return "\n" + _table(("step", "key of its artifact"), rows) if rows else ""


def _public(value: Any) -> Any:
    """The recipe without the places that files have on the machine that built it."""
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return _shortened(value) if isinstance(value, str) else value


def _shortened(text: str) -> str:
    """The last part of an absolute path; anything else as it is."""
    return PurePath(text).name if PurePath(text).is_absolute() else text


def _code(text: str) -> str:
    """The text in a fence longer than any run of backticks within it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}yaml\n{text}{fence}\n"


def _plain(value: Any) -> str:
    """The value on one line, with nothing in it that Markdown or a browser would act on."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("[", "\\[")
