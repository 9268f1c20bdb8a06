"""Reports of a run in Prefect's UI: tables and Markdown, from plans, verdicts and artifacts."""

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.pages.artifact_view import folded
from pipeline.units import duration, size

if TYPE_CHECKING:
    from artifacts.version import Metric
    from pipeline.evaluate.gate import Verdict
    from pipeline.plan.plan import Plan
    from pipeline.rebuild.version_survey import Finding
    from pipeline.run.release import Outcome
    from pipeline.step.realize import Made
    from pipeline.step.step import Step

Row = dict[str, Any]


def plan_rows(plan: "Plan", to_run: Collection[str]) -> list[Row]:
    """The steps in order; those whose key is in `to_run` are to be built."""
    return [
        {
            "step": step.name,
            "key": step.key[:12],
            "status": "to build" if step.key in to_run else "cached",
            "what": step.what,
        }
        for step in plan.all_steps
    ]


def stale_row(finding: "Finding") -> Row:
    """A version that no longer matches, why, and what a rebuild takes."""
    rebuild = finding.rebuild
    return {
        "version": finding.record.reference,
        "aliases": " ".join(f"@{alias}" for alias in finding.record.aliases),
        "loads": "yes" if finding.loads else "no",
        "why": "; ".join(reason.text for reason in finding.reasons),
        "steps": len(rebuild.to_run) if rebuild else None,
        # a step that was never timed makes the sum a lower bound
        "takes": duration(rebuild.seconds) + (" or more" if rebuild.unknown else "")
        if rebuild
        else "unknown",
        "gpu_hours": round(rebuild.gpu_hours, 2) if rebuild else None,
        "usd": None if finding.usd is None else round(finding.usd, 2),
    }


def verdict_rows(verdict: "Verdict") -> list[Row]:
    """The gate's checks."""
    return [{name: _short(value) for name, value in row.items()} for row in verdict.rows()]


def metric_rows(metrics: Sequence["Metric"]) -> list[Row]:
    """Every metric, with its interval where it has one."""
    return [
        {
            "metric": metric.name,
            "value": _short(metric.value),
            "low": _short(metric.low),
            "high": _short(metric.high),
        }
        for metric in metrics
    ]


def coverage_rows(checkpoint: Path) -> list[Row]:
    """Formats and scale ranges of a quantized checkpoint's linears, folded over layers."""
    return folded(json.loads((checkpoint / "coverage.json").read_text())["modules"])


def tuning_page(tuning: Path) -> str:
    """The trials of a search as Markdown that carries its plot, because a Prefect server keeps no files."""
    document = json.loads((tuning / "trials.json").read_text())
    picture = base64.b64encode((tuning / "trials.png").read_bytes()).decode()
    rows = [
        _trial_row(number, trial, chosen=number == document["chosen"])
        for number, trial in enumerate(document["trials"])
    ]
    return "\n".join(
        [
            f"Best of {len(rows)} points by {document['objective']}.",
            "",
            f"![tokens/s against tokens/s per user](data:image/png;base64,{picture})",
            "",
            *_table(("", "point", "tokens/s", "tokens/s per user", "why not"), rows),
        ]
    )


def _trial_row(number: int, trial: Mapping[str, Any], *, chosen: bool) -> tuple[Any, ...]:
    point = ", ".join(f"{name} {value}" for name, value in trial["point"].items())
    # the last row is of the largest batch; a trial that failed has none
    measured = trial["measurement"]["rows"][-1] if trial["measurement"] else {}
    speeds = [_short(measured.get(name)) for name in ("tokens_per_s", "tokens_per_s_per_user")]
    return (f"**{number}, chosen**" if chosen else number, point, *speeds, trial["why"])


def version_page(outcome: "Outcome", ui_url: str) -> str:
    """The published version as Markdown; each key links to the progress of its step."""
    reference, verdict = f"{outcome.name}@{outcome.alias}", outcome.judged.verdict
    rows = [_made_row(artifact, ui_url) for artifact in outcome.made]
    return "\n".join(
        [
            f"# {outcome.name}:{outcome.version}",
            f"`{reference}` is this version. Gate: **{verdict.outcome}** over {verdict.samples} samples.",
            "",
            *_table(("step", "key", "took", "size", "peak memory"), rows),
            "",
            "```",
            f"enginery show {reference}",
            f"enginery pull {reference} ./engine",
            "```",
        ]
    )


def _made_row(artifact: "Made", ui_url: str) -> tuple[str, ...]:
    manifest = artifact.manifest
    return (
        artifact.step.name,
        f"[{artifact.step.key[:12]}]({ui_url}/artifacts/key/{progress_key(artifact.step)})",
        "cached" if artifact.cached else duration(manifest.seconds),
        size(sum(file.size for file in manifest.files.values())),
        size(manifest.peak_memory_bytes) if manifest.peak_memory_bytes else "",
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join('' if cell is None else _cell(cell) for cell in line)} |" for line in lines]


def _cell(value: Any) -> str:
    # a pipe would begin a cell, a line break would end the row
    return str(value).replace("|", r"\|").replace("\n", " ")


def _short(value: Any) -> Any:
    """A float with the digits that mean something; anything else as it is."""
    if isinstance(value, float):
        # counts and tokens/s are read as whole numbers from 10,000 on
        return round(value) if abs(value) >= 10_000 else float(f"{value:.5g}")
    return value


def progress_key(step: "Step") -> str:
    """Key of the step's progress: Prefect allows lower-case letters, digits and dashes."""
    return f"{slug(step.kind)}-{step.key[:12]}"


def slug(name: str) -> str:
    """The name with everything that Prefect's artifact keys do not allow as a dash."""
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in name.lower()).strip("-")


def headline(error: Exception) -> str:
    """Type and first line of an error, and the last line of the log that it quotes, for a state's message."""
    first, *rest = str(error).splitlines() or [""]
    quoted = [line.strip() for line in rest if line.lstrip().startswith("| ")]
    return f"{type(error).__name__}: {' '.join([first, *quoted[-1:]])}"
