import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibration.data.fields import words
from calibration.data.sameness import loose_fingerprint
from calibration.data.scan import scan
from calibration.data.text_files import KINDS
from calibration.errors import DataError
from tests.jobs import build_leakage


def sampled(root, *texts):
    """A calibration set's list of samples."""
    root.mkdir()
    rows = [
        {"file": "calibration.jsonl", "line": line, "source": 0, "tokens": 3, "normalised": loose_fingerprint(text)}
        for line, text in enumerate(texts, start=1)
    ]  # fmt: skip
    (root / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def job(tmp_path: Path, calibrated, gate, **changes) -> dict[str, Any]:
    path = tmp_path / "gate.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in gate))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    data = {"kind": "jsonl", "digests": [digest], "columns": {}, "bad_rows": 0} | changes
    return {
        "params": {"gate": data},
        "places": {"files": [[str(path)]]},
        "inputs": {"calibration_set": str(sampled(tmp_path / "set", *calibrated))},
    }


def test_disjoint_data_passes_and_is_counted(tmp_path: Path):
    events = []
    made = job(tmp_path, ["one", "two", "two"], [{"text": "three"}, {"text": "four"}])
    build_leakage(made, tmp_path, lambda *event: events.append(event))
    found = json.loads((tmp_path / "leakage.json").read_text())
    assert found == {"calibration_samples": 2, "gate_rows": 2, "leaks": 0}
    assert events[-1] == (2, 2, "rows compared")


def test_a_row_in_both_is_an_error_that_names_both_places(tmp_path: Path):
    made = job(tmp_path, ["one", "Two words"], [{"text": "x"}, {"text": "y"}, {"text": "two\n  words"}])
    with pytest.raises(
        DataError, match=r"1 of \d+ rows of the gate's data are calibration samples too; "
    ) as caught:
        build_leakage(made, tmp_path, lambda *_: None)
    assert f"calibration.jsonl:2 is also {tmp_path / 'gate.jsonl'}:3" in str(caught.value)
    assert not (tmp_path / "leakage.json").exists()


def test_the_same_words_as_a_chat_are_found(tmp_path: Path):
    chat = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": "c"},
    ]
    made = job(tmp_path, ["p c"], [{"messages": chat}])
    with pytest.raises(DataError, match="1 rows"):
        build_leakage(made, tmp_path, lambda *_: None)


def test_a_gate_file_that_changed_is_refused(tmp_path: Path):
    made = job(tmp_path, ["one"], [{"text": "two"}], digests=["0" * 64])
    with pytest.raises(DataError, match=r"gate\.jsonl: the file changed after the plan was made"):
        build_leakage(made, tmp_path, lambda *_: None)


def test_the_check_needs_no_tokenizer(run_python: Callable[[str], str]):
    said = run_python(
        "import sys, calibration.data.leakage; print({'torch', 'transformers'} & sys.modules.keys())"
    )
    assert said.strip() == "set()"


def said_in(file: Path):
    found = scan([KINDS[file.suffix[1:]](file)], file.suffix[1:], {})
    return {loose_fingerprint(words(sample.content)) for sample in found.read(range(found.rows))}


def test_the_demo_is_judged_on_text_that_it_is_not_calibrated_on():
    data = Path(__file__).resolve().parents[3] / "recipes" / "demo" / "data"
    gate = said_in(data / "gate.jsonl")
    assert len(gate) > 100
    for name in ("calibration.jsonl", "calibration_chat.jsonl", "unrelated.txt"):
        assert not gate & said_in(data / name), name
