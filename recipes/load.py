"""Loads recipes from a YAML file; reports every problem at once with file, line and column."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recipes.errors import RecipeError
from recipes.located import compose, construct, place, validate
from recipes.regular import shortened
from recipes.schema import Recipe

MAX_VARIANTS = 256
"""Most recipes that the matrix of a file may define."""

MATRIX = "maps dotted keys to lists of values, e.g. {format: [fp8, int8_sq], engine.tp: [1, 2]}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe and its file; relative paths in it start at `base`."""

    recipe: Recipe
    file: Path

    @property
    def base(self) -> Path:
        """Directory that relative paths in the recipe start from."""
        return self.file.parent


def load(file: Path) -> tuple[Loaded, ...]:
    """Reads a recipe file: one recipe, or one per combination of its `matrix`."""
    root = compose(file, "a recipe", "write one with `enginery init`")
    document = construct(file, root)
    matrix = document.pop("matrix", None)
    if matrix is None:
        return (Loaded(_recipe(file, root, document), file),)
    problem = _matrix_problem(document, matrix)
    if problem:
        raise RecipeError(file, [f"{place(root, ('matrix',))}matrix: {problem}"])
    variants = [variant(document, point) for point in combinations(matrix)]
    _check_names(file, root, [str(variant_.get("name")) for variant_ in variants])
    return tuple(Loaded(_recipe(file, root, variant_), file) for variant_ in variants)


def combinations(matrix: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the matrix's values, the last axis fastest."""
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def variant(document: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The document with each dotted key of `point` set, and the point appended to its name."""
    # Each variant sets keys in mappings of its own.
    result = {key: _copy(value) for key, value in document.items()}
    for dotted, value in point.items():
        *parents, leaf = dotted.split(".")
        table = result
        for parent in parents:
            table = table.setdefault(parent, {})
        table[leaf] = value
    labels = [_label(dotted, value) for dotted, value in point.items()]
    name = document.get("name", "")
    if not isinstance(name, str):  # validation reports it
        return result
    return result | {"name": f"{name}/{'_'.join(labels)}"}


def _label(dotted: str, value: Any) -> str:
    """The part of a variant's name for one axis: `fp8`, `fp8_mixed` for a format with exceptions, `tp2`."""
    leaf = dotted.rpartition(".")[2]
    # The exceptions are too long for a name.
    if leaf == "format" and isinstance(value, dict):
        return f"{value['default']}_mixed" if isinstance(value.get("default"), str) else "mixed"
    text = shortened(value if isinstance(value, str) else repr(value))
    return text if leaf in ("format", "target", "backend", "method") else f"{leaf}{text}"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return value


def _matrix_problem(document: Mapping[str, Any], matrix: Any) -> str:
    """Why a matrix cannot be expanded; empty where it can."""
    if not (isinstance(matrix, dict) and matrix and all(isinstance(v, list) and v for v in matrix.values())):
        return MATRIX
    count = math.prod(map(len, matrix.values()))
    if count > MAX_VARIANTS:
        return f"{count} combinations; one file may define at most {MAX_VARIANTS} recipes, remove some values"
    for dotted in matrix:
        parts = dotted.split(".")
        if not all(parts) or parts[0] in ("matrix", "name"):
            return f"{shortened(dotted)!r} is not a key that can vary; matrix {MATRIX}"
        prefixes = [".".join(parts[:cut]) for cut in range(1, len(parts))]
        # `a` and `a.b` cannot both vary: one sets the mapping that the other sets a key of.
        blocking = next(
            (prefix for prefix in prefixes if prefix in matrix or not _is_table(document, prefix)), None
        )
        if blocking is not None:
            return f"{shortened(dotted)!r} sets a part of {blocking!r}, which is not a mapping in the recipe"
    return ""


def _is_table(document: Any, dotted: str) -> bool:
    """Whether keys can be set below a dotted key: it is a mapping or missing."""
    for part in dotted.split("."):
        if part not in document:
            return True
        document = document[part]
        if not isinstance(document, dict):
            return False
    return True


def _check_names(file: Path, root: yaml.Node, names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        mark = place(root, ("matrix",))
        problem = f"{mark}matrix: several recipes would be named {twice[0]!r}; give each a file of its own"
        raise RecipeError(file, [problem])


def _recipe(file: Path, root: yaml.Node, document: dict[str, Any]) -> Recipe:
    return validate(Recipe, file, root, document, more=("matrix",))
