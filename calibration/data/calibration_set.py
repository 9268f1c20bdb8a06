"""Step calibration_set: builds token sequences from sources of text, and a report about them.

Runs in a child process: transformers takes seconds to import.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.numpy import save_file

from calibration.data.drawing import Drawing, Fit, TokenRow, TokenRows, draw
from calibration.data.packing import Packed, pack, pad
from calibration.data.rendering import Reader
from calibration.data.report import report
from calibration.data.report_page import page
from calibration.parameters import CalibrationSetJob, CalibrationSetParams, located
from calibration.step_progress import Progress


def build(job: CalibrationSetJob, progress: Progress) -> None:
    """Writes tokens.safetensors, samples.jsonl, report.json and page.html.

    tokens.safetensors holds `tokens` [S, T] int32, and where rows are padded, not packed, `lengths` [S]
    int32: the tokens of each sequence before its padding, which is on the right. Each sequence begins with
    the tokens that the tokenizer puts in front of a text. Raises DataError for data
    that cannot be used or does not suffice, CheckpointError without a tokenizer.
    """
    params, out = job.params, job.out
    reader = Reader.open(job.inputs["source"], job.places.model)
    files = located(params.data, job.places, job.inputs)
    fit = Fit(length=None if params.pack else params.seq_len, side=params.truncate)
    rows = draw(Drawing(params.data, files, params.seed, params.blend, fit), reader, progress)
    packed = _sequences(params, rows, reader)
    save_file(packed.tensors(), out / "tokens.safetensors")
    write_lines(out / "samples.jsonl", rows.samples)
    counts = report(rows, packed, reader)
    (out / "report.json").write_text(json.dumps(counts, indent=2) + "\n")
    (out / "page.html").write_text(page(counts), encoding="utf-8")


def _sequences(params: CalibrationSetParams, rows: TokenRows, reader: Reader) -> Packed:
    token_ids = [row.token_ids for row in rows.samples]
    if params.pack:
        return pack(token_ids, params.seq_len, params.max_sequences, reader.prefix)
    return pad(token_ids, params.seq_len, params.max_sequences, reader.pad_id, reader.prefix)


def write_lines(file: Path, rows: Iterable[TokenRow]) -> None:
    """Write origin and number of tokens of each sample, and the fingerprint for the step leakage."""
    with file.open("w", encoding="utf-8") as lines:
        for row in rows:
            origin = {"file": row.file, "line": row.line, "source": row.source, "tokens": len(row.token_ids),
                      "normalised": row.normalised}  # fmt: skip
            lines.write(json.dumps(origin) + "\n")
