"""Assigns a format to every linear of a model, with the reasons for exceptions; pure."""

import difflib
from collections.abc import Iterator
from fnmatch import fnmatchcase

from calibration.model.linears import HEAD, KINDS, Layout
from calibration.quantize.coverage import SOURCE
from recipes.formats import Format
from recipes.precision import Precision

ROUTERS = {name for kind in KINDS.values() if kind.experts for name in kind.experts.routers}
"""Last parts of the names of routers."""


def assign_formats(precision: Precision, layout: Layout) -> dict[str, Format]:
    """The format of every linear of the layers."""
    return {name: precision.of(name) for name in layout.linears()}


def reason_left(precision: Precision, module: str) -> str:
    """Why a linear keeps the source dtype; empty where it does not."""
    if module.rpartition(".")[2] in ROUTERS:
        return "routing is sensitive: a rounded weight can choose another expert"
    pattern = next((p for p, _ in precision.exceptions if fnmatchcase(module, p)), None)
    if precision.of(module).weight == "source":
        return f"excluded by recipe pattern {pattern!r}" if pattern else f"format {precision.default.name}"
    return f"excluded by the preset {precision.of(module).modelopt_cfg}" if module == HEAD else ""


def intended_format(precision: Precision, module: str) -> str:
    """Name of the format that a linear should have, or `source`."""
    return SOURCE if reason_left(precision, module) else precision.of(module).name


def idle_exceptions(precision: Precision, layout: Layout) -> Iterator[str]:
    """Problems of exceptions without effect: they match no linear, or only linears of earlier exceptions."""
    names, named_before = layout.linears(), set[str]()
    for pattern, fmt in precision.exceptions:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches and fnmatchcase(HEAD, pattern):
            if fmt.weight != "source":
                yield f"format.except: {pattern!r} names {HEAD}, which no preset quantizes; leave it out"
        elif not matches:
            yield (
                f"format.except: {pattern!r} matches no linear of the model's {layout.num_layers} layers; "
                f"did you mean {_nearest(pattern, names)!r}?"
            )
        elif matches <= named_before:
            yield (
                f"format.except: {pattern!r} matches only linears that earlier exceptions name; "
                "the first match counts, so put it before them"
            )
        named_before |= matches


def _nearest(pattern: str, names: tuple[str, ...]) -> str:
    """The name of a linear, or the pattern for a layer or block, that is most similar to a pattern."""
    parents = {f"{name.rsplit('.', cut)[0]}.*" for name in names for cut in (1, 2)}
    suffixes = {f"*.{name.rpartition('.')[2]}" for name in names}
    candidates = sorted({*names, *parents, *suffixes})
    return difflib.get_close_matches(pattern, candidates, n=1, cutoff=0.0)[0]
