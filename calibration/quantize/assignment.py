"""Which linear of a model gets which format, and why; pure, for the plan and the build."""

import difflib
from collections.abc import Iterator
from fnmatch import fnmatchcase

from calibration.model.linears import HEAD, KINDS, Layout
from calibration.quantize.coverage import SOURCE
from recipes.formats import Format
from recipes.precision import Precision

ROUTERS = {name for kind in KINDS.values() if kind.experts for name in kind.experts.routers}
"""Last parts of the names of modules that weigh experts."""


def assigned(precision: Precision, layout: Layout) -> dict[str, Format]:
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


def intended(precision: Precision, module: str) -> str:
    """Name of the format that a linear shall have, or `source`."""
    return SOURCE if reason_left(precision, module) else precision.of(module).name


def idle_exceptions(precision: Precision, layout: Layout) -> Iterator[str]:
    """Says which exceptions have no effect: a name that no linear has, or that an earlier one names."""
    names, taken = layout.linears(), set[str]()
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
        elif matches <= taken:
            yield (
                f"format.except: {pattern!r} matches only linears that earlier exceptions name; "
                "the first match counts, so put it before them"
            )
        taken |= matches


def _nearest(pattern: str, names: tuple[str, ...]) -> str:
    """The linear, or the pattern for a whole layer or block of one, that looks most like a pattern."""
    parents = {f"{name.rsplit('.', cut)[0]}.*" for name in names for cut in (1, 2)}
    anywhere = {f"*.{name.rpartition('.')[2]}" for name in names}
    known = sorted({*names, *parents, *anywhere})
    return difflib.get_close_matches(pattern, known, n=1, cutoff=0.0)[0]
