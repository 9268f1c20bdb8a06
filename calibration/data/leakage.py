"""Step leakage: no sample that ranges are measured on may stand in the gate's data, before a GPU is used."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from calibration.data.fields import words
from calibration.data.origin import open_sources
from calibration.data.sameness import loose_fingerprint
from calibration.data.scan import MAX_PROBLEMS, Scan
from calibration.errors import DataError

Progress = Callable[[int, int, str], None]

TICK_ROWS = 1024
"""Rows compared between two progress reports."""


def build(job: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Writes leakage.json: how many samples and rows were compared.

    Raises DataError that names both places of every sample that also stands in the gate's data, but for
    case and white space; the whole of that data counts, not only what the gate draws from it. Where the
    job has a `source`, whose tokenizer has more tokens than the model, a row with such a token is one too.
    """
    if "source" in job["inputs"]:
        _require_known_tokens(job, progress)
    (gate,) = open_sources(job, [job["params"]["gate"]], job["places"]["files"], progress)
    samples = Path(job["inputs"]["calibration_set"]) / "samples.jsonl"
    calibrated = {row["normalised"]: f"{row['file']}:{row['line']}" for row in _lines(samples)}
    leaks = [(calibrated[said], place) for said, place in _rows(gate, progress) if said in calibrated]
    if leaks:
        shown = [f"  {sample} is also {place}" for sample, place in leaks[:MAX_PROBLEMS]]
        raise DataError(
            f"{len(leaks)} of {gate.rows} rows of the gate's data are calibration samples too; remove them "
            "from one of the two: the gate would judge the engine on text that it was made with\n"
            + "\n".join(shown)
        )
    found = {"calibration_samples": len(calibrated), "gate_rows": gate.rows, "leaks": 0}
    (out / "leakage.json").write_text(json.dumps(found, indent=2) + "\n")


def _require_known_tokens(job: Mapping[str, Any], progress: Progress) -> None:
    """Draws the gate's rows as the gate will, much later."""
    from calibration.data.drawing import draw  # transformers costs seconds, and few tokenizers need this
    from calibration.data.rendering import Reader

    drawn = job["params"]["drawn"]
    data = {**job["params"]["gate"], "samples": drawn["samples"]}
    reader = Reader.open(Path(job["inputs"]["source"]), job["places"].get("model", ""))
    draw(job, {"data": [data], "seed": drawn["seed"]}, reader, progress)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _rows(gate: Scan, progress: Progress) -> Iterator[tuple[str, str]]:
    """Yields the fingerprint and the place of each row of the gate's data."""
    for count, sample in enumerate(gate.read(range(gate.rows))):
        if count % TICK_ROWS == 0:
            progress(count, gate.rows, "rows compared")
        yield loose_fingerprint(words(sample.content)), sample.place
    progress(gate.rows, gate.rows, "rows compared")
