"""Differences between two files of one name, and whether they matter for serving."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import SourceError
from pipeline.step import reuse
from pipeline.weights.tensors import TensorEntry, read_header

SHOWN = 4
"""Places that are named of one file, at most."""

LONGEST = 60
"""Characters of a value that are shown, at most."""

WEIGHTS = "the engine computes with other weights: run the gate again"
CODE = "the weights are the same, compiled code is not: results may differ in their last bits, and speed may"
BEFORE = "later steps are compared by themselves"
NOTES = "it describes the build; served results do not depend on it"
TUNING = "it is what building measured: times, and choices for the next build; no weight depends on it"
LIMITS = "servers and readers use it: check what changed"

ENGINES = (".engine", ".plan", ".pt2", ".so")

ABSENT = "absent"

COMPARED_BYTES = 8 << 20

SERVED = ("checkpoint", "engine", "source")
"""Parts of the kinds whose tensors an engine computes with."""

NOTED = (
    "engine.json",
    "manifest.json",
    "build_report.json",
    "audit.json",
    "coverage.json",
    "report.json",
    "search.json",
    "page.html",
)
"""Descriptions and reports; `config.json` and the like are read by runtimes."""


BUILT_AT = ("build_config.input_timing_cache", "build_config.output_timing_cache")
"""Places in the `config.json` of a TensorRT engine that say where it was built; nothing reads them again."""

BUILT_BY = ("producer.layout_version", "pretrained_config.producer.layout_version")
"""Places in the `config.json` of checkpoints and engines that say by which of our rules tensors were named;
no runtime reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One file that differs."""

    name: str
    what: str
    """What of it is different."""
    why: str
    """Why that matters, or not."""
    matters: bool
    """Whether what is served can be other than what was gated, beyond the last bits."""


def file(kind: str, name: str, was: Path, now: Path) -> Difference:
    """Compares two files of different bytes in an artifact of a kind; either may be absent."""
    why, matters = _importance(name) if any(part in kind for part in SERVED) else (BEFORE, False)
    if matters and name.endswith("config.json") and _only_notes(was, now):
        why, matters = NOTES, False
    if not was.exists() or not now.exists():
        description = "only published" if was.exists() else "only in the rebuild"
    elif name.endswith(".safetensors"):
        description = _tensors(was, now)
    elif name.endswith(".json"):
        description = _json(was, now)
    elif zipfile.is_zipfile(was) and zipfile.is_zipfile(now):
        description = _members(was, now)
    else:
        description = f"{was.stat().st_size:,} bytes, now {now.stat().st_size:,}"
    return Difference(name=name, what=description, why=why, matters=matters)


def _importance(name: str) -> tuple[str, bool]:
    """Why a difference in a file of that name matters, and whether it does."""
    path = PurePosixPath(name)
    if reuse.TUNING in path.parts:
        return TUNING, False
    if path.suffix == ".safetensors":
        return WEIGHTS, True
    if path.suffix in ENGINES:
        return CODE, False
    return (NOTES, False) if path.name in NOTED else (LIMITS, True)


def _tensors(was: Path, now: Path) -> str:
    """Counts the tensors whose type, shape or bytes differ."""
    try:
        # a broken file is a difference to report; the other files are still to be compared
        before, after = read_header(was), read_header(now)
    except SourceError as exc:
        return str(exc)
    names = sorted({*before, *after})
    differing = [name for name in names if not _same(name, before, after)]
    if not differing:
        return "the same tensors; only the file's header differs"
    return f"{len(differing)} of {len(names)} tensors: {_few(differing)}"


def _same(name: str, before: Mapping[str, TensorEntry], after: Mapping[str, TensorEntry]) -> bool:
    before_entry, after_entry = before.get(name), after.get(name)
    if (
        before_entry is None
        or after_entry is None
        or (before_entry.dtype, before_entry.shape) != (after_entry.dtype, after_entry.shape)
    ):
        return False
    with before_entry.file.open("rb") as first, after_entry.file.open("rb") as second:
        first.seek(before_entry.start)
        second.seek(after_entry.start)
        remaining = before_entry.nbytes
        # in pieces: a tensor may have gigabytes
        while remaining:
            count = min(COMPARED_BYTES, remaining)
            if first.read(count) != second.read(count):
                return False
            remaining -= count
    return True


def _json(was: Path, now: Path) -> str:
    try:
        differing = list(values(json.loads(was.read_bytes()), json.loads(now.read_bytes())))
    except ValueError as exc:
        return f"no JSON ({exc})"
    if not differing:
        return "the same values, written otherwise"
    return _few([f"{place} was {before}, is {after}" for place, before, after in differing])


def _only_notes(was: Path, now: Path) -> bool:
    try:
        differing = values(json.loads(was.read_bytes()), json.loads(now.read_bytes()))
        return all(place in (*BUILT_AT, *BUILT_BY) for place, _, _ in differing)
    except (OSError, ValueError):
        # no JSON, or only one of the two is there: then the difference matters
        return False


def values(was: Any, now: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields where two JSON values differ, dotted, and both values there, shortened."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*was, *now]):
            # both orders: keys that only one of them has are differences too
            yield from values(was.get(key, ABSENT), now.get(key, ABSENT), f"{place}.{key}".lstrip("."))
    elif was != now:
        yield place or "it", _short(was), _short(now)


def _short(value: Any) -> str:
    """The value as text; a long list with its first items, a long text with its beginning, and `...`."""
    text = str(value)
    if len(text) <= LONGEST:
        return text
    items = ""
    for item in value if isinstance(value, list) else ():
        # whole items only, so that no number is shown with half of its digits
        if len(items) + len(f"{item!r}, ") + len("[...]") > LONGEST:
            break
        items += f"{item!r}, "
    return f"[{items}...]" if items else f"{text[: LONGEST - 3]}..."


def _members(was: Path, now: Path) -> str:
    """Counts the members of two archives whose bytes differ."""
    before, after = (
        {
            _inner(member.filename): (member.file_size, member.CRC)
            # the directory of a zip has both, so that nothing is unpacked; dates are left out
            for member in zipfile.ZipFile(path).infolist()
        }
        for path in (was, now)
    )
    names = sorted({*before, *after})
    differing = [name for name in names if before.get(name) != after.get(name)]
    if not differing:
        return "an archive of the same members; only dates or their order differ"
    return f"{len(differing)} of {len(names)} members of the archive: {_few(differing)}"


def _inner(name: str) -> str:
    """A member's name without the archive's own, which packages of PyTorch put first."""
    return name.partition("/")[2] or name


def _few(texts: Sequence[str]) -> str:
    return "; ".join(texts[:SHOWN]) + ("; ..." if len(texts) > SHOWN else "")
