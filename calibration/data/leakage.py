"""Step leakage: checks, before a GPU is used, that no calibration sample is in the gate's data."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibration.data.fields import words
from calibration.data.origin import open_sources
from calibration.data.sameness import loose_fingerprint
from calibration.data.scan import MAX_PROBLEMS, Scan
from calibration.errors import DataError
from calibration.parameters import Draw, LeakageJob, located
from calibration.step_progress import Progress

TICK_ROWS = 1024
"""Rows compared between two progress reports."""


def build(job: LeakageJob, progress: Progress) -> None:
    """Writes leakage.json: how many samples and rows were compared.

    Raises DataError that names both places of every sample that also stands in the gate's data, but for
    case and white space; the whole of that data counts, not only what the gate draws from it. Where the
    tokenizer of the input `source` has more tokens than the model, also for a row `drawn` with such a token.
    """
    files = located([job.params.gate], job.places, job.inputs)
    if job.params.drawn is not None:
        _require_known_tokens(job, job.params.drawn, progress)
    (gate,) = open_sources([job.params.gate], files, progress)
    samples = job.inputs["calibration_set"] / "samples.jsonl"
    calibrated = {row["normalised"]: f"{row['file']}:{row['line']}" for row in _lines(samples)}
    leaks = [(calibrated[text], place) for text, place in _rows(gate, progress) if text in calibrated]
    if leaks:
        listed = [f"  {sample} is also {place}" for sample, place in leaks[:MAX_PROBLEMS]]
        raise DataError(
            f"{len(leaks)} of {gate.rows} rows of the gate's data are calibration samples too; remove them "
            "from one of the two: the gate must not score the engine on text that it was calibrated with\n"
            + "\n".join(listed)
        )
    found = {"calibration_samples": len(calibrated), "gate_rows": gate.rows, "leaks": 0}
    (job.out / "leakage.json").write_text(json.dumps(found, indent=2) + "\n")


def _require_known_tokens(job: LeakageJob, drawn: Draw, progress: Progress) -> None:
    """Draws the gate's rows as the gate will, much later."""
    from calibration.data.drawing import (  # transformers costs seconds, and few tokenizers need this
        Drawing,
        draw,
    )
    from calibration.data.rendering import Reader

    gate = job.params.gate.drawn(drawn.samples)
    files = located([gate], job.places, job.inputs)
    reader = Reader.open(job.inputs["source"], job.places.model)
    draw(Drawing([gate], files, drawn.seed), reader, progress)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _rows(gate: Scan, progress: Progress) -> Iterator[tuple[str, str]]:
    """Yield fingerprint and place of each row of the gate's data."""
    for count, sample in enumerate(gate.read(range(gate.rows))):
        if count % TICK_ROWS == 0:
            progress(count, gate.rows, "rows compared")
        yield loose_fingerprint(words(sample.content)), sample.place
    progress(gate.rows, gate.rows, "rows compared")
