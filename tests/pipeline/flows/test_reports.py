"""Pages and rows that people read about a run."""

import base64
import json
from pathlib import Path

from artifacts.version import Metric
from pipeline.flows import reports


def test_floats_keep_the_digits_that_mean_something():
    rows = reports.metric_rows(
        [Metric("kl", 0.00107500001, 0.001, None), Metric("size_bytes", 12345678.0, None, None)]
    )
    assert rows[0] == {"metric": "kl", "value": 0.001075, "low": 0.001, "high": None}
    assert rows[1]["value"] == 12345678


def test_the_tuning_page_shows_plot_points_choice_and_failures(tmp_path: Path):
    measured = {"rows": [{"tokens_per_s": 801.26, "tokens_per_s_per_user": 200.0}]}
    trials = [
        {"point": {"max_batch_size": 1}, "measurement": None, "why": "exit code 1 | out of memory"},
        {"point": {"max_batch_size": 4}, "measurement": measured, "why": ""},
    ]
    (tmp_path / "trials.json").write_text(
        json.dumps({"objective": "throughput", "chosen": 1, "trials": trials})
    )
    (tmp_path / "trials.png").write_bytes(b"a picture")
    page = reports.tuning_page(tmp_path)
    assert f"(data:image/png;base64,{base64.b64encode(b'a picture').decode()})" in page
    assert r"| 0 | max_batch_size 1 |  |  | exit code 1 \| out of memory |" in page
    assert "| **1, chosen** | max_batch_size 4 | 801.26 | 200.0 |  |" in page


def test_keys_hold_only_what_prefect_allows():
    assert reports.slug("Llama-3.1_8B/fp8:tp2") == "llama-3-1-8b-fp8-tp2"


def test_the_headline_of_an_error_is_its_type_its_first_line_and_the_end_of_the_log():
    assert reports.headline(ValueError("a is 3\n  detail")) == "ValueError: a is 3"
    quoted = ValueError("it failed: exit code 1\n  log: /a/log\n  | Traceback\n  | KeyError: 7")
    assert reports.headline(quoted) == "ValueError: it failed: exit code 1 | KeyError: 7"
