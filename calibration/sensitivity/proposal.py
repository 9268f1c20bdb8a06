"""Proposes linears for a wider format by the error and the bytes of each one's quantization; pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibration.sensitivity.sensitivity_values import (
    FormatWithExceptions,
    LinearValues,
    ProposalValues,
    RankedUnit,
    UnitValues,
)
from recipes.formats import FORMATS

KEPT_SHARE = 0.1
"""Default share of the units that a proposal leaves at the wider format."""


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
        """The linears as one name: `model.layers.0.self_attn.q_proj+k_proj+v_proj`."""
        first, *rest = self.linears
        return "+".join([first, *(name.rpartition(".")[2] for name in rest)])

    def as_dict(self) -> UnitValues:
        """As JSON."""
        return {"linears": list(self.linears), "errors": dict(self.errors), "bytes": dict(self.sizes)}

    @classmethod
    def of(cls, document: UnitValues) -> "Unit":
        """The unit in a value from `as_dict`."""
        return cls(linears=tuple(document["linears"]), errors=document["errors"], sizes=document["bytes"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A format with exceptions, and their predicted gain and cost."""

    format: str
    wider: str
    forced: tuple[Unit, ...]
    """Units that do not fit the format's blocks."""
    units: tuple[Unit, ...]
    """Units proposed as exceptions, the best trade first."""
    gain: float
    """Share of the summed relative output error that the exceptions remove."""
    added_bytes: int
    """Bytes that the exceptions add to the weights."""
    total_bytes: int
    """Bytes of the linears' weights without the proposed exceptions."""
    fitting: int
    """Units that the format fits."""

    @property
    def summary(self) -> str:
        """Gain and cost of the proposal in one line."""
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
    def recipe_format(self) -> str | FormatWithExceptions:
        """The value of a recipe's `format`."""
        return {"default": self.format, "except": self.exceptions} if self.exceptions else self.format

    @property
    def yaml(self) -> str:
        """The lines to paste into a recipe."""
        if not self.exceptions:
            return f"format: {self.format}\n"
        lines = [f"    {name}: {wider}" for name, wider in self.exceptions.items()]
        return "\n".join(["format:", f"  default: {self.format}", "  except:", *lines]) + "\n"

    def as_dict(self) -> ProposalValues:
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
    """Sort key that puts layer 10 after layer 9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]


def units(linears: Sequence[LinearValues], together: Sequence[tuple[str, ...]]) -> list[Unit]:
    """Linears (`module`, `errors`, `bytes`) as units, in the order of their first linear.

    `together` are the names of linears that must have one format; those that were not measured are left out.
    """
    by_name = {linear["module"]: linear for linear in linears}
    unit_of = {name: names for names in together for name in names}
    groups = dict.fromkeys(unit_of.get(name, (name,)) for name in by_name)
    return [_unit([by_name[name] for name in names if name in by_name]) for names in groups]


def _unit(linears: Sequence[LinearValues]) -> Unit:
    # A unit has one format, which must fit each of its linears.
    common = [name for name in linears[0]["errors"] if all(name in linear["errors"] for linear in linears)]
    return Unit(
        linears=tuple(linear["module"] for linear in linears),
        # Exactly rounded sums, which do not depend on the order of the linears.
        errors={name: math.fsum(linear["errors"][name] for linear in linears) for name in common},
        sizes={name: sum(linear["bytes"][name] for linear in linears) for name in common},
    )


def widers(name: str) -> list[str]:
    """Formats allowed for a format's exceptions: those with more bits, `none` first."""
    return [other for other, fmt in FORMATS.items() if fmt.weight_bits > FORMATS[name].weight_bits]


def bargains(all_units: Sequence[Unit], name: str, wider: str) -> list[Unit]:
    """Units with a smaller error at the wider format, the largest reduction per added byte first."""
    # A unit that one of the formats does not fit has no error to compare.
    comparable = [unit for unit in all_units if {name, wider} <= unit.errors.keys()]
    improving = [unit for unit in comparable if unit.errors[name] > unit.errors[wider]]

    def per_byte(unit: Unit) -> float:
        # A wider format may take no more bytes; then its gain counts as if it cost one.
        return (unit.errors[name] - unit.errors[wider]) / max(unit.sizes[wider] - unit.sizes[name], 1)

    return sorted(improving, key=per_byte, reverse=True)


def propose(
    all_units: Sequence[Unit],
    name: str,
    wider: str = "none",
    *,
    keep: int | None = None,
    gain: float | None = None,
) -> Proposal:
    """The best `keep` trades, or as many as are needed to remove the share `gain` of the error."""
    ordered = bargains(all_units, name, wider)
    fitting = [unit for unit in all_units if name in unit.errors]
    total = math.fsum(unit.errors[name] for unit in fitting)
    if gain is None:
        # Rounded up: a small model gets at least one.
        count = math.ceil(KEPT_SHARE * len(fitting)) if keep is None else keep
    else:
        count = _units_for_error(ordered, name, wider, gain * total)
    chosen = tuple(ordered[:count])
    # Not a choice: blocks that do not fit leave only the wider format.
    forced = tuple(unit for unit in all_units if name not in unit.errors)
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


def ranked(all_units: Sequence[Unit], proposal: Proposal) -> list[RankedUnit]:
    """A table of the units that the format fits, the largest error first."""
    name, wider = proposal.format, proposal.wider
    fitting = sorted((u for u in all_units if name in u.errors), key=lambda u: u.errors[name], reverse=True)
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


def _units_for_error(ordered: Sequence[Unit], name: str, wider: str, target: float) -> int:
    """Number of units that remove the target error; all of them if they do not suffice."""
    removed = 0.0
    for count, unit in enumerate(ordered):
        if removed >= target:
            return count
        removed += unit.errors[name] - unit.errors[wider]
    return len(ordered)
