"""Pictures of a search and of a gate; importing matplotlib takes half a second, so import this late."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.errors import NoFeasiblePoint
from pipeline.evaluate.tuning_search import Objective, Row, Trial, best_row, choose, misses
from recipes.schema import Slo

GOOD, BEST, BAD, OPEN, GREY, INK = "#2463a8", "#0b7a4b", "#b3261e", "#a66300", "#8a9096", "#202124"
"""Colours; outcomes differ in marker or in words too, so that no meaning is in colour alone."""

LOG_FROM = 20.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""

NEAR = 0.05
"""Distance, as a share of the axes, below which points share one label."""

SLO_TEXT = {
    "ttft_ms_p95": "time to first token p95 at most {:g} ms",
    "itl_ms_p95": "inter-token latency p95 at most {:g} ms",
    "tokens_per_s_per_user": "at least {:g} tokens/s per user",
}


def throughput_plot(trials: Sequence[Trial], objective: Objective, slo: Slo, path: Path) -> None:
    """Draws every trial's throughput against the speed each user sees, and writes it as PNG.

    A line is one trial over its batch sizes; its number stands in the list beside the plot, with what it came
    to. Points that miss the SLO are hollow and grey; a ring marks the chosen one.
    """
    try:
        chosen = choose(trials, objective, slo)
    except NoFeasiblePoint:
        # the plot is drawn all the same: it shows how far the trials are from the SLO
        chosen = None
    # Figure, not pyplot: no display and no global state is needed to write a file
    figure = Figure(figsize=(11, max(5.0, 1.4 + 0.55 * len(trials))), layout="constrained")
    axes, listing = figure.subplots(1, 2, width_ratios=(5, 4))
    for trial in trials:
        _draw_trial(axes, trial, slo, best_row(trial, objective, slo) if trial is chosen else None)
    _throughput_axes(axes, [row for trial in trials for row in _rows(trial)], slo)
    _number_trials(axes, trials, lambda trial: best_row(trial, objective, slo))
    _list(
        listing,
        [
            (f"{number}  {_label(trial, trials)}", *_came_to(trial, chosen, objective, slo))
            for number, trial in enumerate(trials, start=1)
        ],
    )
    limits = [SLO_TEXT[name].format(limit) for name, limit in slo.model_dump(exclude_none=True).items()]
    axes.set_title("Throughput against speed per user", loc="left", weight="bold", pad=24)
    detail = axes.text(0, 1.025, f"best by {objective}; SLO: {', '.join(limits) or 'none'}", fontsize=9.5)
    # out of the layout, or a long SLO would squeeze the axes
    detail.set(transform=axes.transAxes, color="#5f6368", in_layout=False)
    _save(figure, path)


def _label(trial: Trial, trials: Sequence[Trial]) -> str:
    """The trial's point without settings that are the same in every trial."""
    same = {name for name in trial.point if all(other.point[name] == trial.point[name] for other in trials)}
    point = {name: value for name, value in trial.point.items() if name not in same} or trial.point
    return Trial(point=point, engine=None, measurement=None).label.replace("options.", "")


def _rows(trial: Trial) -> list[Row]:
    rows = trial.measurement["rows"] if trial.measurement else ()
    finite = (row for row in rows if math.isfinite(row["tokens_per_s"] * row["tokens_per_s_per_user"]))
    return sorted(finite, key=lambda row: row["batch_size"])


def _xy(row: Row) -> tuple[float, float]:
    return row["tokens_per_s_per_user"], row["tokens_per_s"]


def _draw_trial(axes: Axes, trial: Trial, slo: Slo, best: Row | None) -> None:
    """One trial's batch sizes as a line of dots, hollow and grey where they miss the SLO."""
    rows = _rows(trial)
    color = GREY if all(misses(row, slo) for row in rows) else GOOD
    axes.plot([_xy(row)[0] for row in rows], [_xy(row)[1] for row in rows], color=color, alpha=0.45, zorder=1)
    for row in rows:
        face, edge = ("white", GREY) if misses(row, slo) else (GOOD, GOOD)
        axes.scatter(*_xy(row), s=46, facecolor=face, edgecolor=edge, linewidth=1.6, zorder=3)
        if row is best:
            axes.scatter(*_xy(row), s=230, facecolor="none", edgecolor=BEST, linewidth=2.4, zorder=2)


def _throughput_axes(axes: Axes, rows: Sequence[Row], slo: Slo) -> None:
    """Scales, names and the SLO's line."""
    axes.margins(0.14)
    for scale, limit, name in (
        (axes.set_xscale, axes.set_xlim, "tokens_per_s_per_user"),
        (axes.set_yscale, axes.set_ylim, "tokens_per_s"),
    ):
        if _wide([row[name] for row in rows]):
            scale("log")
        elif rows:
            limit(0, 1.14 * max(row[name] for row in rows))
    axes.set_xlabel("output tokens/s per user")
    axes.set_ylabel("output tokens/s, all users")
    if not rows:
        axes.text(0.5, 0.5, "no point was measured", transform=axes.transAxes, ha="center", color=GREY)
    if slo.tokens_per_s_per_user is not None:
        axes.axvline(slo.tokens_per_s_per_user, color=BAD, linewidth=1.2, linestyle="--", zorder=0)
        text = axes.annotate("SLO", (slo.tokens_per_s_per_user, 1), (4, -12), textcoords="offset points")
        text.set(color=BAD, fontsize=9)
        # x at the limit, y at the top of the frame, whatever the scale
        text.xycoords = ("data", "axes fraction")
    _plain(axes)


def _number_trials(axes: Axes, trials: Sequence[Trial], best: Callable[[Trial], Row | None]) -> None:
    """Writes each trial's number at its best batch size, or its largest; neighbours share a label."""
    groups: list[tuple[tuple[float, float], Row, list[str]]] = []
    for number, trial in enumerate(trials, start=1):
        rows = _rows(trial)
        if not rows:
            continue
        row = best(trial) or rows[-1]
        # distance in shares of the axes: data units mean nothing on a logarithmic one
        place = axes.transAxes.inverted().transform(axes.transData.transform(_xy(row)))
        near = [group for group in groups if math.dist(group[0], place) < NEAR]
        if near:
            near[0][2].append(str(number))
        else:
            groups.append((tuple(place), row, [str(number)]))
    for _, row, numbers in groups:
        text = axes.annotate(", ".join(numbers), _xy(row), (10, 8), textcoords="offset points")
        text.set(color=INK, fontsize=10, weight="bold", zorder=4)


def _came_to(trial: Trial, chosen: Trial | None, objective: Objective, slo: Slo) -> tuple[str, str]:
    """What became of a trial, in words, and the colour to say it in."""
    rows = _rows(trial)
    if not rows:
        return f"not measured: {trial.why or 'no finite figures'}", GREY
    best = best_row(trial, objective, slo)
    if best is None:
        nearest = min(rows, key=lambda row: len(misses(row, slo)))
        missed = [f"{name} {have:.4g}" for name, (have, _) in misses(nearest, slo).items()]
        return f"misses the SLO: {', '.join(missed) or 'no finite figures'}", GREY
    speed = f"{best['tokens_per_s']:.4g} tokens/s, {best['itl_ms_p50']:.3g} ms between tokens"
    came_to = f"{speed}, batch {best['batch_size']}"
    return (f"chosen: {came_to}", BEST) if trial is chosen else (came_to, INK)


def _list(axes: Axes, lines: Sequence[tuple[str, str, str]]) -> None:
    """The key beside the plot: a heading and a line of detail per trial, top to bottom."""
    axes.set_axis_off()
    # at least 7 rows, or two trials would be spread over the whole height
    step = 1 / max(len(lines), 7)
    for number, (head, detail, color) in enumerate(lines):
        y = 1 - (number + 0.15) * step
        for x, below, text, width, style in (
            (0.0, 0.0, head, 52, {"fontsize": 10, "weight": "bold"}),
            (0.04, 0.32 * step, detail, 66, {"fontsize": 8.5}),
        ):
            drawn = axes.text(x, y - below, _cut(text, width), transform=axes.transAxes, color=color, **style)
            drawn.set(va="top", in_layout=False)


def _cut(text: str, width: int) -> str:
    first = text.splitlines()[0] if text else ""
    return first if len(first) <= width else first[: width - 1] + "…"


MARKS = {"PASS": ("o", GOOD), "FAIL": ("X", BAD), "INCONCLUSIVE": ("D", OPEN)}
"""Outcome -> marker and colour."""

NAMES = {
    "kl": ("token KL divergence, nats", "lower is better", "{:.2g}"),
    "top1_agreement": ("top-1 agreement", "higher is better", "{:.4f}"),
    "perplexity_ratio": ("perplexity ratio", "lower is better", "{:.4f}"),
}
"""Metric -> its name, its good direction, and how a value is written."""


def accuracy_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws every metric of every engine with its interval against the limit, and writes it as PNG.

    A row is a gate check with a `label`, e.g. the format: label, metric, value, low, high, limit, outcome.
    Values that are not numbers (None) are named instead of drawn.
    """
    labels = list(dict.fromkeys(str(row["label"]) for row in rows))
    metrics = [name for name in NAMES if any(row["metric"] == name for row in rows)]
    size = (1.6 + 3.9 * len(metrics), 1.7 + 0.5 * len(labels))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(grid, metrics, strict=True):
        _draw_metric(axes, metric, [row for row in rows if row["metric"] == metric], labels)
    grid[0].set_yticks(range(len(labels)), labels)
    # upside down: the first label is at the top
    grid[0].set_ylim(len(labels) - 0.4, -0.6)
    seen = [name for name in MARKS if any(row["outcome"] == name for row in rows)]
    handles = [
        grid[0].plot([], [], linestyle="", marker=MARKS[name][0], color=MARKS[name][1], label=name)[0]
        for name in seen
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(seen), frameon=False, fontsize=9)
    figure.suptitle(
        "Built engine against source checkpoint, 95 % intervals", x=0.01, ha="left", weight="bold"
    )
    _save(figure, path)


def _draw_metric(axes: Axes, metric: str, rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> None:
    """One metric: a dot with its interval per engine, the limit as a line, what is beyond it shaded."""
    finite = [row for row in rows if None not in (row["value"], row["low"], row["high"])]
    ends = [row[end] for row in finite for end in ("low", "high")]
    limits = sorted({row["limit"] for row in rows if row["limit"] is not None})
    # the other metrics lie around 1, where a logarithm shows nothing more
    if metric == "kl" and _wide([*ends, *limits]):
        axes.set_xscale("log")
    for row in finite:
        marker, color = MARKS[row["outcome"]]
        y = labels.index(str(row["label"]))
        axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2.2, solid_capstyle="butt")
        axes.plot(row["value"], y, marker=marker, color=color, markersize=7)
        value = NAMES[metric][2].format(row["value"])
        text = axes.annotate(value, (row["value"], y), (0, 8), textcoords="offset points")
        text.set(color=color, fontsize=8.5, ha="center")
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8})
    for row in rows:
        if row not in finite:
            note = axes.text(0.5, labels.index(str(row["label"])), "not finite")
            note.set(transform=axes.get_yaxis_transform(), color=BAD, ha="center", va="center")
    _frame_metric(axes, metric, [*ends, *limits], limits)


def _frame_metric(axes: Axes, metric: str, values: Sequence[float], limits: Sequence[float]) -> None:
    if axes.get_xscale() == "linear" and values:
        # all equal, or all 0: an axis must still have a width
        room = 0.15 * ((max(values) - min(values)) or abs(max(values)) or 1)
        axes.set_xlim(min(values) - room, max(values) + room)
    elif values:
        axes.set_xlim(min(v for v in values if v > 0) / 1.6, max(values) * 1.6)
    # read before axvspan, which would widen the axis to its edge
    low, high = axes.get_xlim()
    for limit in limits:
        axes.axvline(limit, color=INK, linewidth=1, linestyle="--")
    if len(limits) == 1:
        beyond = (low, limits[0]) if metric == "top1_agreement" else (limits[0], high)
        axes.axvspan(*beyond, color=BAD, alpha=0.07, linewidth=0)
        axes.set_xlim(low, high)
    name, better, _ = NAMES[metric]
    at = f", limit {limits[0]:g}" if len(limits) == 1 else ""
    axes.set_xlabel(f"{name}\n({better}{at})", fontsize=9.5)
    _plain(axes)
    axes.grid(axis="y", visible=False)


def _wide(values: Sequence[float]) -> bool:
    """Whether positive values span so much that only a logarithmic axis shows them all."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > LOG_FROM


def _plain(axes: Axes) -> None:
    axes.grid(color="#e8eaed", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(
        path, dpi=150, format="png", metadata={"Software": None}
    )  # the same bytes from the same numbers
