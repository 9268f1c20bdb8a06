"""A recipe that would suit a request, made from that of a version that nearly does; pure."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from artifacts.finding.comparison import Setting
from artifacts.version import VersionRecord
from pipeline.advice.remedies import FIXES, Draft
from recipes.formats import FORMATS
from recipes.schema import Recipe

NAMED = ("format", "kv_cache", "engine.tp", "engine.pp", "engine.target", "engine.backend")
"""Places that make another engine, which gets another name."""


PATHS = ("path", "template")
"""Keys of a recipe whose text is a file's place, relative to the recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A recipe, where it differs from the version's that it was made of, and what it cannot promise."""

    of: str
    """`NAME:NUMBER` whose recipe it was made from."""
    recipe: Recipe | None
    """None where no recipe would do; `open` says why."""
    changes: tuple[Setting, ...]
    notes: tuple[str, ...]
    """What the build needs beside the recipe, or what only measuring can tell."""
    open: tuple[str, ...]
    """What no recipe changes."""

    def to_yaml(self) -> str:
        """The recipe as a file, headed by where it came from; a ValueError where there is none."""
        if self.recipe is None:
            raise ValueError(f"there is no recipe: {'; '.join(self.open)}")
        heading = [
            f"Made from {self.of}; changed:",
            *(f"  {change.text}" for change in self.changes),
            *self.notes,
        ]
        document = self.recipe.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
        )
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
        return "".join(f"# {line}\n" for line in heading) + text


def suggest(
    record: VersionRecord,
    missed: Sequence[str],
    request: Mapping[str, Any],
    siblings: Sequence[VersionRecord] = (),
) -> Suggestion:
    """Changes a version's recipe so that an engine built from it suits a `request`, fact -> value.

    `missed` are the facts that the version does not suit; `siblings` are other versions of the model, whose
    calibration is taken where the version had none and the new format needs it.
    """
    # The version's own recipe must stay as it is.
    draft = Draft(copy.deepcopy(record.recipe), record.facts, request)
    if problems := _problems(draft.recipe):  # nothing can be changed in what is no recipe of this version
        open_ = tuple(
            f"the recipe of {record.reference} is not one of this version ({problem})" for problem in problems
        )
        return Suggestion(of=record.reference, recipe=None, changes=(), notes=(), open=open_)
    # In the order of FIXES: later ones read what earlier ones set.
    for fact in [name for name in FIXES if name in missed]:
        FIXES[fact](draft, request.get(fact))
    draft.open += [f"{fact}: no recipe changes that" for fact in missed if fact not in FIXES]
    # After the format is settled, which decides whether ranges are measured at all.
    _feed(draft, siblings)
    _rename(draft)
    # What no recipe changes would be missed by this one too.
    recipe = None if draft.open else _checked(draft)
    return Suggestion(
        of=record.reference,
        recipe=recipe,
        changes=tuple(draft.changes),
        notes=tuple(draft.notes),
        open=tuple(draft.open),
    )


def placed(record: VersionRecord) -> VersionRecord:
    """The version with absolute paths in its recipe, so that a recipe made of it works wherever it is put."""
    file = record.source.get("file")
    return record if not file else replace(record, recipe=_absolute(record.recipe, Path(file).parent))


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: str(folder / item) if key in PATHS and isinstance(item, str) else _absolute(item, folder)
        for key, item in value.items()
    }


def formats_like(recipe: Mapping[str, Any]) -> list[str]:
    """The other formats, those with weights of a like size first; the unquantized one is the last resort."""
    format_ = recipe.get("format", "none")
    have = format_ if isinstance(format_, str) else format_["default"]
    if have not in FORMATS:
        return []
    bits = FORMATS[have].weight_bits
    others = [fmt for fmt in FORMATS.values() if fmt.name != have]
    return [
        fmt.name
        for fmt in sorted(others, key=lambda fmt: (fmt.weight_bits == 16, abs(fmt.weight_bits - bits)))
    ]


def _checked(draft: Draft) -> Recipe | None:
    problems = _problems(draft.recipe)
    draft.open += problems
    return None if problems else Recipe.model_validate(draft.recipe)


def _problems(recipe: Mapping[str, Any]) -> list[str]:
    """Everything that makes it no recipe; nothing where it is one."""
    try:
        Recipe.model_validate(recipe)
    except ValidationError as exc:
        places = [(".".join(map(str, error["loc"])), error["msg"]) for error in exc.errors(include_url=False)]
        return [f"{place}: {message}" if place else message for place, message in places]
    return []


def _feed(draft: Draft, siblings: Sequence[VersionRecord]) -> None:
    """Gives a format with calibrated scales what a sibling was calibrated on."""
    if draft.recipe.get("calibration") is not None:
        return
    fed = next((sibling for sibling in siblings if sibling.recipe.get("calibration") is not None), None)
    if fed is None:
        return
    try:
        Recipe.model_validate(draft.recipe)
    except ValidationError:
        # Without ranges a recipe of this format is not valid; that is how the need for them shows.
        draft.set("calibration", fed.recipe["calibration"])
        draft.notes.append(f"Its calibration is that of {fed.reference}.")


def _rename(draft: Draft) -> None:
    """Names another engine otherwise: the old name with the changed values in it, or behind it."""
    if "name" in draft.wanted:
        return
    name = before = str(draft.recipe["name"])
    for change in draft.changes:
        leaf = change.place.rpartition(".")[2]
        if change.place not in (
            "format",
            "kv_cache",
            "engine.tp",
            "engine.pp",
            "engine.target",
            "engine.backend",
        ):
            continue
        old, new = (
            (str(value) if leaf not in ("tp", "pp") else f"{leaf}{value}")
            for value in (change.before, change.after)
        )
        # Whole words, so that tp1 is not found in tp16; \b would take the underscores of names for letters.
        match = re.search(rf"(?<![A-Za-z0-9]){re.escape(old)}(?![A-Za-z0-9])", name)
        name = name[: match.start()] + new + name[match.end() :] if match else f"{name}_{new}"
    draft.set("name", name[:200])
    if name == before and draft.changes:
        draft.notes.append(f"It keeps its name: the build is the next version of {name}.")
