"""The contents of one artifact, by its kind: lines, tables and warnings, read from its files."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.address import key_of
from artifacts.errors import NotFound
from artifacts.store.local import LocalStore
from calibration.model.linears import FIRST
from calibration.sensitivity.proposal import Unit, propose, ranked

Row = dict[str, Any]

KEY_PREFIX = re.compile(r"[0-9a-f]{6,64}")
"""What may be the beginning of a key."""

WIDEST = 10
"""Input ranges listed of statistics."""

LAYER = re.compile(r"(.*\.layers\.)(\d+)(\..*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """What there is to see."""

    document: Mapping[str, Any] = field(default_factory=dict)
    """The artifact's own JSON, whole."""
    lines: tuple[str, ...] = ()
    tables: tuple[tuple[str, list[Row]], ...] = ()
    """Title and rows."""
    warnings: tuple[str, ...] = ()


def find_key(store: LocalStore, beginning: str) -> str | None:
    """The key that begins so; None where no key can or does, NotFound where several do."""
    if not KEY_PREFIX.fullmatch(beginning):
        return None
    # an engine has an address per content beside its key; both lead to one key here
    every = dict.fromkeys(key_of(name) for name in store.keys())  # noqa: SIM118 a store is no dict
    keys = [key for key in every if key.startswith(beginning)]
    if len(keys) > 1:
        raise NotFound(
            f"{len(keys)} keys begin with {beginning!r}; give more of one: "
            + ", ".join(key[:16] for key in keys)
        )
    return keys[0] if keys else None


def root_of(store: LocalStore, key: str, kind: str) -> Path:
    """Directory with the files that the exhibit of that kind reads; the others are not asked for."""
    if kind not in KINDS:
        return store.path(key)
    if kind not in READS:
        return store.directory(key)
    files = store.manifest(key).files
    (*_, directory) = (store.file(key, name).parent for name in READS[kind] if name in files)
    return directory


def exhibit(kind: str, root: Path) -> Exhibit:
    """What there is to see of an artifact of that kind in the directory `root`."""
    return KINDS[kind](root) if kind in KINDS else Exhibit()


def quantized_checkpoint(root: Path) -> Exhibit:
    """Each linear: intended against actual format, ranges of scales, why it was left."""
    coverage = _read(root / "coverage.json")
    cache = coverage.get("kv_cache", {})
    lines = [
        f"{coverage['quantized']} of {coverage['linears']} linears quantized, {coverage['left']} left "
        "at the source dtype"
    ]
    if cache.get("scales"):
        lines.append(f"KV cache {cache['type']}, scales {_range(cache['scales'].values())}")
    left_out = [
        {"source_tensor": name, "left_out_because": why}
        for name, why in coverage["source_tensors_left_out"].items()
    ]
    return Exhibit(
        document=coverage, lines=tuple(lines), tables=(("", folded(coverage["modules"])), ("", left_out))
    )


def folded(modules: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row per linear; those that differ in their layer only share one, with the ranges over all of them."""
    together: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for module in modules:
        in_layer = LAYER.fullmatch(module["module"])
        place = "".join(in_layer.group(1, 3)) if in_layer else module["module"]
        # names of scales only: their values become the ranges of the row
        same = (place, module["intended"], module["actual"], module["reason"], *module["scales"])
        together.setdefault(same, []).append(module)
    scales = list(dict.fromkeys(name for module in modules for name in module["scales"]))
    return [
        {
            "linear": _over_layers([member["module"] for member in members]),
            "intended": intended,
            "actual": actual,
            **{
                name: _range(value for member in members for value in member["scales"].get(name, ()))
                for name in scales
            },
            "zero_scales": sum(member["zero_scales"] for member in members),
            "left_because": reason,
        }
        for (_, intended, actual, reason, *_), members in together.items()
    ]


def _over_layers(names: Sequence[str]) -> str:
    """Names that differ in their layer as one: `model.layers.{0..3,7}.mlp.up_proj`."""
    matches = [LAYER.fullmatch(name) for name in names]
    first = matches[0]
    # one linear keeps its own name, as braces around one number would only be harder to copy
    if first is None or len(names) == 1:
        return names[0]
    # as numbers: as text, 10 is before 2
    layers = sorted(int(match.group(2)) for match in matches if match)
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    ranges = ",".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"{first.group(1)}{{{ranges}}}{first.group(3)}"


def _range(values: Iterable[float]) -> str:
    numbers = list(values)
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def statistics(root: Path) -> Exhibit:
    """The pass's report, and the inputs with the widest ranges."""
    report = _read(root / "report.json")
    return Exhibit(
        document=report,
        tables=(("", _facts(report)), (f"the {WIDEST} widest inputs", widest(root))),
        warnings=tuple(report.get("warnings", ())),
    )


def widest(root: Path) -> list[Row]:
    """The inputs with the largest values; linears that share an input are one."""
    import numpy as np  # only for what holds tensors
    from safetensors import safe_open

    files = sorted(root.glob("layer-*.safetensors"))
    rows: list[Row] = []
    for file in files:
        with safe_open(file, framework="np") as handle:
            for name in handle.keys():  # noqa: SIM118 a handle is no dict
                linear, _, statistic = name.rpartition(".")
                if statistic == "input_amax" and linear.rpartition(".")[2] not in FIRST:
                    amax = handle.get_tensor(name)
                    rows.append(
                        {
                            "input_of": linear,
                            "largest": float(amax.max()),
                            "in_channel": int(amax.argmax()),
                            "median_channel": float(np.median(amax)),
                        }
                    )
    return sorted(rows, key=lambda row: row["largest"], reverse=True)[:WIDEST]


def calibration_set(root: Path) -> Exhibit:
    """The set's report, and where its page is."""
    report, page = _read(root / "report.json"), root / "page.html"
    return Exhibit(
        document=report,
        lines=(f"page {page}",) if page.is_file() else (),
        tables=(("", _facts(report)),),
        warnings=tuple(report.get("warnings", ())),
    )


def sensitivity(root: Path) -> Exhibit:
    """What each format costs in all, and which unit most of it."""
    document = _read(root / "sensitivity.json")
    units = [Unit.of(unit) for unit in document["units"]]
    rows = []
    for name in document["formats"]:
        # no ranking for a format whose blocks fit no linear
        ranking = ranked(units, propose(units, name))
        if ranking:
            rows.append(
                {
                    "format": name,
                    "summed_error": sum(row["error"] for row in ranking),
                    "worst_unit": ranking[0]["unit"],
                    "its_error": ranking[0]["error"],
                }
            )
    return Exhibit(document=document, lines=(f"page {root / 'page.html'}",), tables=(("", rows),))


def _facts(report: Mapping[str, Any], under: str = "") -> list[Row]:
    """A report's single values, dotted where they are nested; lists stay with the page and the JSON."""
    rows: list[Row] = []
    for name, value in report.items():
        if isinstance(value, Mapping):
            rows += _facts(value, f"{under}{name}.")
        elif not isinstance(value, list):
            rows.append({"what": f"{under}{name}", "value": value})
    return rows


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


KINDS: Mapping[str, Callable[[Path], Exhibit]] = {
    "quantized_checkpoint": quantized_checkpoint,
    "statistics": statistics,
    "calibration_set": calibration_set,
    "sensitivity": sensitivity,
}
"""Kinds of artifacts that have more to show than their manifest."""

READS: Mapping[str, tuple[str, ...]] = {
    "quantized_checkpoint": ("coverage.json",),
    "calibration_set": ("page.html", "report.json"),
    "sensitivity": ("page.html", "sensitivity.json"),
}
"""Kinds whose exhibits read these files at most; the last one is always there."""
