"""Step leakage: checks, before a GPU is used, that no calibration sample is in the gate's data."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from calibration.data.fields import words
from calibration.data.origin import open_sources
from calibration.data.sameness import loose_fingerprint
from calibration.data.scan import MAX_PROBLEMS, Scan
from calibration.errors import DataError
from calibration.progress import Progress

TICK_ROWS = 1024
"""Rows compared between two progress reports."""


def build(job: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Write leakage.json with the numbers of samples and rows compared.

    DataError, with both places, for every sample that is also in the gate's data, ignoring case and white
    space; all of that data is compared, not only the rows that the gate draws. If the job has a `source`,
    whose tokenizer has more tokens than the model, a row with such a token is a DataError too.
    """
    if "source" in job["inputs"]:
        _require_known_tokens(job, progress)
    (gate,) = open_sources(job, [job["params"]["gate"]], job["places"]["files"], progress)
    samples = Path(job["inputs"]["calibration_set"]) / "samples.jsonl"
    calibrated = {row["normalised"]: f"{row['file']}:{row['line']}" for row in _lines(samples)}
    leaks = [(calibrated[text], place) for text, place in _rows(gate, progress) if text in calibrated]
    if leaks:
        listed = [f"  {sample} is also {place}" for sample, place in leaks[:MAX_PROBLEMS]]
        raise DataError(
            f"{len(leaks)} of {gate.rows} rows of the gate's data are calibration samples too; remove them "
            "from one of the two: the gate must not score the engine on text that it was calibrated with\n"
            + "\n".join(listed)
        )
    counts = {"calibration_samples": len(calibrated), "gate_rows": gate.rows, "leaks": 0}
    (out / "leakage.json").write_text(json.dumps(counts, indent=2) + "\n")


def _require_known_tokens(job: Mapping[str, Any], progress: Progress) -> None:
    """Draw the gate's rows now, as the gate will after the build, to find unusable rows early."""
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
    """Yield fingerprint and place of each row of the gate's data."""
    for count, sample in enumerate(gate.read(range(gate.rows))):
        if count % TICK_ROWS == 0:
            progress(count, gate.rows, "rows compared")
        yield loose_fingerprint(words(sample.content)), sample.place
    progress(gate.rows, gate.rows, "rows compared")
