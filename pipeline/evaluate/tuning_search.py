"""Searching engine settings: which points to try, and which trial is best; pure."""

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from pipeline.errors import NoFeasiblePoint
from recipes.regular import shortened
from recipes.schema import OPTION, SETTINGS, Budget, Engine, Slo

Point = dict[str, Any]
Space = Mapping[str, Sequence[Any]]
Cell = tuple[int, ...]
"""A point as indices into the values of each setting."""

ALLOWED = f"{', '.join(SETTINGS)}, {OPTION}<name of a backend option>"

POOL = 4096
"""Largest grid that is searched for spread whole; a larger one is first sampled down to this many points."""


def points(space: Space, budget: Budget, *, default: Engine, seed: int = 0) -> list[Point]:
    """Points to try: the whole grid where the budget allows, else a seeded subset spread over it.

    The first is the recipe's own: `default`'s values where the space lists them, else the first ones listed.
    Every next one of a subset is the point farthest from all before it, so a search cut short is spread too.
    """
    axes = {name: _distinct(values) for name, values in space.items()}
    sizes = [len(values) for values in axes.values()]
    own = tuple(_own(name, values, default) for name, values in axes.items())
    if math.prod(sizes) <= budget.trials:
        rest = (cell for cell in itertools.product(*map(range, sizes)) if cell != own)
        cells = [own, *rest]
    else:
        pool = _pool(sizes, max(POOL, budget.trials), seed)
        cells = _spread(own, pool, sizes, budget.trials)
    return [
        {name: values[index] for (name, values), index in zip(axes.items(), cell, strict=True)}
        for cell in cells
    ]


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Values without repeats, as JSON sees them: 1 and true differ."""
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _own(name: str, values: Sequence[Any], default: Engine) -> int:
    """Index of the value that `default` has for the setting; 0 where the space does not list it."""
    if name.startswith(OPTION):
        have = default.options.get(name.removeprefix(OPTION))
    else:
        have = getattr(default, name, None)
    # compared as JSON: in Python 1 == True, and True would find the 1
    texts = [json.dumps(value, sort_keys=True) for value in values]
    text = json.dumps(have, sort_keys=True)
    return texts.index(text) if text in texts else 0


def _pool(sizes: Sequence[int], count: int, seed: int) -> list[Cell]:
    """`count` distinct cells of the grid in random order; all of them where it has no more."""
    rng = random.Random(seed)
    total = math.prod(sizes)  # may be beyond what random.sample can index
    # a dict keeps the order of drawing; a set's order would not be the seed's
    numbers: dict[int, None] = {}
    # draws again on a repeat; ends, since no more are asked for than there are
    while len(numbers) < min(count, total):
        numbers[rng.randrange(total)] = None
    return [_cell(number, sizes) for number in numbers]


def _cell(number: int, sizes: Sequence[int]) -> Cell:
    """The `number`th cell of the grid, last setting fastest."""
    cell = []
    for size in reversed(sizes):
        number, index = divmod(number, size)
        cell.append(index)
    return tuple(reversed(cell))


def _spread(own: Cell, pool: Sequence[Cell], sizes: Sequence[int], count: int) -> list[Cell]:
    """`count` cells, each as far as possible from those before it; ties go to the earlier in the pool."""
    chosen = [own]
    distances = {cell: _distance(cell, own, sizes) for cell in pool if cell != own}
    while distances and len(chosen) < count:
        farthest = max(distances, key=distances.__getitem__)
        chosen.append(farthest)
        del distances[farthest]
        for cell, distance in distances.items():
            # the distance to the nearest chosen cell; kept up to date, not computed anew each round
            distances[cell] = min(distance, _distance(cell, farthest, sizes))
    return chosen


def _distance(left: Cell, right: Cell, sizes: Sequence[int]) -> float:
    """Squared distance, with every setting's first and last value one apart."""
    # a setting with one value adds nothing, and must not divide by 0
    return sum(((a - b) / max(1, size - 1)) ** 2 for a, b, size in zip(left, right, sizes, strict=True))


def apply(engine: Engine, point: Mapping[str, Any]) -> Engine:
    """The engine with a point's settings; raises ValueError for unknown settings and values out of range."""
    values = engine.model_dump()
    for name, value in point.items():
        option = name.removeprefix(OPTION)
        if name in SETTINGS:
            values[name] = value
        elif name.startswith(OPTION) and option:
            values["options"][option] = value
        else:
            raise ValueError(f"unknown setting {name!r}; have {ALLOWED}")
    try:
        return Engine.model_validate(values)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        name = ".".join(map(str, error["loc"]))
        raise ValueError(
            f"{name}: {shortened(repr(error['input']))} is refused; {error['msg'].lower()}"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point, built and measured, or the reason why it was not."""

    point: Mapping[str, Any]
    engine: str | None
    """Key of the engine; None where the build failed."""
    measurement: Mapping[str, Any] | None
    """What `measurement.json` says; None where the engine was not measured."""
    why: str = ""
    """Why there is no engine or no measurement."""

    @property
    def label(self) -> str:
        """The point in one line, e.g. `max_batch_size=16, options.autotune=true`."""
        return ", ".join(f"{name}={_text(value)}" for name, value in self.point.items())

    def as_dict(self) -> dict[str, Any]:
        """The trial as JSON."""
        return {
            "point": dict(self.point),
            "engine": self.engine,
            "measurement": self.measurement,
            "why": self.why,
        }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


Objective = Literal["throughput", "latency"]
Row = Mapping[str, Any]

OBJECTIVES: dict[Objective, tuple[str, int]] = {
    "throughput": ("tokens_per_s", -1),
    "latency": ("itl_ms_p50", 1),
}
"""Objective -> the measured figure and its sign, so that less is better."""

AT_MOST = ("ttft_ms_p95", "itl_ms_p95")
AT_LEAST = ("tokens_per_s_per_user",)


def misses(row: Row, slo: Slo) -> dict[str, tuple[float, float]]:
    """Figures of one batch size that miss the SLO, as (measured, wanted); a NaN misses."""
    limits = slo.model_dump(exclude_none=True)
    return {
        name: (float(row[name]), limit)
        for name, limit in limits.items()
        # `not`, so that a NaN, for which both comparisons are False, misses
        if not (row[name] <= limit if name in AT_MOST else row[name] >= limit)
    }


def best_row(trial: Trial, objective: Objective, slo: Slo) -> Row | None:
    """The trial's best batch size under the SLO; None where none reaches it."""
    name, sign = OBJECTIVES[objective]
    rows = [row for row in _rows(trial) if math.isfinite(row[name]) and not misses(row, slo)]
    return min(rows, key=lambda row: sign * row[name], default=None)


def _rows(trial: Trial) -> Sequence[Row]:
    return () if trial.measurement is None else trial.measurement["rows"]


def choose(trials: Sequence[Trial], objective: Objective, slo: Slo) -> Trial:
    """The best feasible trial, the earlier one where two are equal; raises NoFeasiblePoint where none is."""
    name, sign = OBJECTIVES[objective]
    feasible = [(trial, row) for trial in trials if (row := best_row(trial, objective, slo)) is not None]
    if not feasible:
        raise NoFeasiblePoint(_nearest(trials, slo))
    return min(feasible, key=lambda pair: sign * pair[1][name])[0]


def _nearest(trials: Sequence[Trial], slo: Slo) -> str:
    """The message for a search without a feasible point: the closest trial, or why none was measured."""
    measured = [(_excess(row, slo), number, row) for number, row in _measured(trials)]
    if not measured:
        head = (
            f"none of {len(trials)} points could be built and measured; change tune.space as the reasons say"
        )
        return "\n".join([head, *(f"  {trial.label}: {trial.why}" for trial in trials)])
    # two keys: rows are mappings, which cannot be compared
    _, number, row = min(measured, key=lambda entry: entry[:2])
    missed = [
        f"{name} {have:.4g}, wanted at {'most' if name in AT_MOST else 'least'} {want:g}"
        for name, (have, want) in misses(row, slo).items()
    ]
    place = f"{trials[number].label} at batch {row['batch_size']}"
    return (
        f"none of {len(trials)} points reaches tune.slo; relax it or widen tune.space\n"
        f"  closest is {place}: {'; '.join(missed) or 'no finite figures'}"
    )


def _measured(trials: Sequence[Trial]) -> Iterator[tuple[int, Row]]:
    for number, trial in enumerate(trials):
        for row in _rows(trial):
            yield number, row


def _excess(row: Row, slo: Slo) -> float:
    """How far a row misses the SLO: the largest factor over any missed limit, infinite for a NaN."""
    factors = [
        # factors above 1 in both directions, so that milliseconds and tokens compare
        have / want if name in AT_MOST else want / have if have > 0 else math.inf
        for name, (have, want) in misses(row, slo).items()
    ]
    # a row that misses nothing is here because its figure is not finite: never the nearest
    return max((math.inf if math.isnan(factor) else factor for factor in factors), default=math.inf)


def trial_rows(trials: Sequence[Trial], objective: Objective, slo: Slo) -> list[dict[str, Any]]:
    """One row per trial, for tables: its point, its best figures, and why it is not feasible."""
    rows = []
    for trial in trials:
        best = best_row(trial, objective, slo)
        row = best or min(_rows(trial), key=lambda row: _excess(row, slo), default={})
        missed = (
            ", ".join(f"{name} {have:.4g}" for name, (have, _) in misses(row, slo).items()) if row else ""
        )
        rows.append({"point": trial.label, "feasible": best is not None, **row, "why": trial.why or missed})
    return rows
