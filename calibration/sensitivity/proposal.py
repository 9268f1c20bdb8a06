"""Which linears to leave at a wider format, from what each one's quantization costs; pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipes.formats import FORMATS

KEPT_SHARE = 0.1
"""Share of the units that a proposal leaves at the wider format when nobody says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Linears that must have one format: a fused group, or one linear."""

    linears: tuple[str, ...]
    """Module names."""
    errors: Mapping[str, float]
    """Format -> sum of the linears' relative output errors; formats that do not fit are absent."""
    sizes: Mapping[str, int]
    """Format -> bytes of the weights and their scales."""

    @property
    def label(self) -> str:
        """The linears as one word: `model.layers.0.self_attn.q_proj+k_proj+v_proj`."""
        first, *rest = self.linears
        return "+".join([first, *(name.rpartition(".")[2] for name in rest)])

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"linears": list(self.linears), "errors": dict(self.errors), "bytes": dict(self.sizes)}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Unit":
        """What `as_dict` made."""
        return cls(linears=tuple(found["linears"]), errors=found["errors"], sizes=found["bytes"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A format with exceptions, and what the exceptions are predicted to bring and to cost."""

    format: str
    wider: str
    forced: tuple[Unit, ...]
    """Units that the format's blocks do not fit."""
    units: tuple[Unit, ...]
    """Units proposed as exceptions, the best bargain first."""
    gain: float
    """Share of the summed relative output error that goes."""
    added_bytes: int
    """Bytes by which the weights grow."""
    total_bytes: int
    """Bytes of the linears' weights without the proposed exceptions."""
    fitting: int
    """Units that the format fits."""

    @property
    def summary(self) -> str:
        """What the proposal brings and costs, in one line."""
        wider = "the source dtype" if self.wider == "none" else self.wider
        added = 100 * self.added_bytes / self.total_bytes if self.total_bytes else 0.0
        return (
            f"{len(self.units)} of {self.fitting} units stay at {wider}: {100 * self.gain:.1f} % of the "
            f"summed error goes, for {self.added_bytes / 1e6:.3g} MB more ({added:.1f} % of the linears)"
        )

    @property
    def exceptions(self) -> dict[str, str]:
        """Module name -> wider format, layer by layer."""
        names = [name for unit in (*self.forced, *self.units) for name in unit.linears]
        return dict.fromkeys(sorted(names, key=natural), self.wider)

    @property
    def recipe_format(self) -> str | dict[str, Any]:
        """The value of a recipe's `format`."""
        return {"default": self.format, "except": self.exceptions} if self.exceptions else self.format

    @property
    def yaml(self) -> str:
        """The lines that paste into a recipe."""
        if not self.exceptions:
            return f"format: {self.format}\n"
        lines = [f"    {name}: {wider}" for name, wider in self.exceptions.items()]
        return "\n".join(["format:", f"  default: {self.format}", "  except:", *lines]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": self.recipe_format,
            "yaml": self.yaml,
            "units": [unit.label for unit in self.units],
            "gain": self.gain,
            "added_bytes": self.added_bytes,
            "total_bytes": self.total_bytes,
        }


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts layer 10 after layer 9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]


def units(linears: Sequence[Mapping[str, Any]], together: Sequence[tuple[str, ...]]) -> list[Unit]:
    """Linears (`module`, `errors`, `bytes`) as units, in the order of their first linear.

    `together` are the names of linears that must have one format; those that were not measured are left out.
    """
    by_name = {linear["module"]: linear for linear in linears}
    unit_of = {name: names for names in together for name in names}
    found = dict.fromkeys(unit_of.get(name, (name,)) for name in by_name)
    return [_unit([by_name[name] for name in names if name in by_name]) for names in found]


def _unit(linears: Sequence[Mapping[str, Any]]) -> Unit:
    common = [name for name in linears[0]["errors"] if all(name in one["errors"] for one in linears)]
    return Unit(
        linears=tuple(one["module"] for one in linears),
        errors={name: math.fsum(one["errors"][name] for one in linears) for name in common},
        sizes={name: sum(one["bytes"][name] for one in linears) for name in common},
    )


def widers(name: str) -> list[str]:
    """Formats that may stand for a format's exceptions: those with more bits, `none` first."""
    return [other for other, fmt in FORMATS.items() if fmt.weight_bits > FORMATS[name].weight_bits]


def bargains(found: Sequence[Unit], name: str, wider: str) -> list[Unit]:
    """Units whose error falls at the wider format, those that lose most of it per added byte first."""
    able = [unit for unit in found if {name, wider} <= unit.errors.keys()]
    better = [unit for unit in able if unit.errors[name] > unit.errors[wider]]

    def per_byte(unit: Unit) -> float:
        return (unit.errors[name] - unit.errors[wider]) / max(unit.sizes[wider] - unit.sizes[name], 1)

    return sorted(better, key=per_byte, reverse=True)


def propose(
    found: Sequence[Unit],
    name: str,
    wider: str = "none",
    *,
    keep: int | None = None,
    gain: float | None = None,
) -> Proposal:
    """The best `keep` bargains, or as many as it takes to remove the share `gain` of the error."""
    ordered = bargains(found, name, wider)
    fitting = [unit for unit in found if name in unit.errors]
    total = math.fsum(unit.errors[name] for unit in fitting)
    if gain is None:
        count = math.ceil(KEPT_SHARE * len(fitting)) if keep is None else keep
    else:
        count = _enough(ordered, name, wider, gain * total)
    chosen = tuple(ordered[:count])
    forced = tuple(unit for unit in found if name not in unit.errors)
    return Proposal(
        format=name,
        wider=wider,
        forced=forced,
        units=chosen,
        gain=math.fsum(unit.errors[name] - unit.errors[wider] for unit in chosen) / total if total else 0.0,
        added_bytes=sum(unit.sizes[wider] - unit.sizes[name] for unit in chosen),
        total_bytes=sum(unit.sizes[name] for unit in fitting) + sum(unit.sizes[wider] for unit in forced),
        fitting=len(fitting),
    )


def ranked(found: Sequence[Unit], proposal: Proposal) -> list[dict[str, Any]]:
    """A table of the units that the format fits, the largest error first."""
    name, wider = proposal.format, proposal.wider
    fitting = sorted((u for u in found if name in u.errors), key=lambda u: u.errors[name], reverse=True)
    total = math.fsum(unit.errors[name] for unit in fitting)
    return [
        {
            "unit": unit.label,
            "error": unit.errors[name],
            "share_%": 100 * unit.errors[name] / total if total else 0.0,
            "added_MB": (unit.sizes[wider] - unit.sizes[name]) / 1e6,
            "proposed": "except" if unit in proposal.units else "",
        }
        for unit in fitting
    ]


def _enough(ordered: Sequence[Unit], name: str, wider: str, wanted: float) -> int:
    """How many units it takes to remove that much error; all of them where that is not enough."""
    removed = 0.0
    for count, unit in enumerate(ordered):
        if removed >= wanted:
            return count
        removed += unit.errors[name] - unit.errors[wider]
    return len(ordered)
