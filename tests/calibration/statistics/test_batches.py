import json
from pathlib import Path

import pytest
import torch

from calibration.errors import DataError
from calibration.statistics.batches import load_batches, sample_rows
from calibration.statistics.statistics_artifact import Statistics
from tests.calibration.recorded import record
from tests.calibration.statistics.passes import job, make, run, write_tokens


def test_samples_reach_from_the_first_token_to_the_last():
    assert sample_rows(5).tolist() == [0, 1, 2, 3, 4]
    rows = sample_rows(100_000)
    assert (len(rows), int(rows[0]), int(rows[-1])) == (128, 0, 99_999)
    assert rows.diff().min() >= rows.diff().max() - 1


def test_padded_tokens_enter_no_statistic(tmp_path: Path):
    """Each sequence alone, without its padding, is the reference; attention looks back only."""
    lengths = [48, 1, 30, 17]
    model = make(tmp_path / "source", dtype="float32")
    tokens_ST = write_tokens(tmp_path / "tokens", sequences=4, lengths=lengths)
    work = job(tmp_path / "source", tmp_path / "tokens", tmp_path / "resume", batch_size=2, record="ranges")
    found = Statistics(run(work, tmp_path / "out"))
    parts = [
        Statistics(record(model, tokens_ST[i : i + 1, :n], tmp_path / f"part{i}", batch_size=1, search=False))
        for i, n in enumerate(lengths)
    ]
    assert json.loads((found.root / "report.json").read_text())["tokens"] == sum(lengths)
    for name in found.places:
        pieces = [part.tensor(name) for part in parts]
        if name.endswith("input_mean"):
            expected = sum(piece * n for piece, n in zip(pieces, lengths, strict=True)) / sum(lengths)
        elif name.endswith("input_sample"):
            expected = torch.cat(pieces)
        else:
            expected = torch.stack(pieces).amax(dim=0)
        torch.testing.assert_close(found.tensor(name), expected, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("lengths", [[0, 4], [4, 49], [4]])
def test_lengths_that_are_none_are_refused(tmp_path: Path, lengths: list[int]):
    write_tokens(tmp_path / "tokens", sequences=2, lengths=lengths)
    with pytest.raises(DataError, match="lengths"):
        load_batches(tmp_path / "tokens", 2, torch.device("cpu"))
