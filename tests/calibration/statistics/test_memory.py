import json
from pathlib import Path

import pytest

from tests.calibration.statistics.passes import job, start, write_large, write_tokens

pytestmark = pytest.mark.slow

WIDE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 4}


@pytest.mark.slow
def test_a_checkpoint_larger_than_the_cap_calibrates_below_it(tmp_path: Path):
    cap = 700_000_000
    assert write_large(tmp_path / "source", 30, **WIDE) > 1.25 * cap
    write_tokens(tmp_path / "tokens", sequences=4, seq_len=64)
    memory = {"device": "cpu", "gpu_bytes": 0, "host_bytes": cap}
    work = job(
        tmp_path / "source",
        tmp_path / "tokens",
        tmp_path / "resume",
        memory=memory,
        record="ranges",
        batch_size=4,
    )
    child = start(work, tmp_path / "out")
    _, told = child.communicate()
    assert child.returncode == 0, told
    host = json.loads((tmp_path / "out" / "report.json").read_text())["memory_bytes"]["host"]
    assert host["declared"] == cap
    assert host["measured"] <= host["predicted"] < cap


def test_a_pass_above_its_cap_ends_with_the_figures(tmp_path: Path):
    write_large(tmp_path / "source", 2)
    write_tokens(tmp_path / "tokens", sequences=2, seq_len=16)
    memory = {"device": "cpu", "gpu_bytes": 0, "host_bytes": 100_000_000}
    child = start(
        job(tmp_path / "source", tmp_path / "tokens", tmp_path / "resume", memory=memory), tmp_path / "out"
    )
    _, told = child.communicate()
    assert child.returncode == 1
    assert "MemoryExceeded: host memory: the pass took 0." in told
    assert "more than the cap of 0.10 GB" in told
