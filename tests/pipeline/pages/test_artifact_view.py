"""What `enginery show KEY` shows: coverage folded by layer, reports, the widest inputs."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from artifacts.errors import NotFound
from artifacts.store.opening import open_store
from calibration.quantize.coverage import Linear, document
from pipeline.flows.reports import coverage_rows
from pipeline.pages.artifact_view import exhibit, find_key, folded


def linear(layer: int, kind: str, actual: str = "fp8", reason: str = "", scale: float = 0.5) -> Linear:
    """One linear of a layer."""
    scales = {"weight_scale": (scale, 2 * scale)} if actual != "source" else {}
    return Linear(
        module=f"model.layers.{layer}.{kind}", intended=actual, actual=actual, reason=reason, scales=scales
    )


LINEARS = [
    *(linear(layer, "mlp.up_proj", scale=0.5 + layer) for layer in (0, 1, 2, 5, 10, 11)),
    *(linear(layer, "mlp.up_proj", "source", "excluded by recipe pattern 'a'") for layer in (3, 4)),
    Linear(module="lm_head", intended="source", actual="source", reason="excluded by the preset P"),
]


def coverage(root: Path) -> Path:
    """A quantized checkpoint's coverage.json."""
    found = document(
        "fp8", LINEARS, {"x.inv_freq": "a constant"}, {"type": "fp8", "scales": {"k": 0.25, "v": 0.5}}
    )
    (root / "coverage.json").write_text(json.dumps(found))
    return root


def test_linears_that_differ_in_their_layer_only_are_one_row(tmp_path: Path):
    rows = folded(json.loads((coverage(tmp_path) / "coverage.json").read_text())["modules"])
    assert [row["linear"] for row in rows] == [
        "model.layers.{0..2,5,10..11}.mlp.up_proj", "model.layers.{3..4}.mlp.up_proj", "lm_head"
    ]  # fmt: skip
    assert rows[0] == {
        "linear": "model.layers.{0..2,5,10..11}.mlp.up_proj", "intended": "fp8", "actual": "fp8",
        "weight_scale": "0.5 to 23", "zero_scales": 0, "left_because": "",
    }  # fmt: skip
    assert (rows[1]["actual"], rows[1]["weight_scale"]) == ("source", "")
    assert rows[1]["left_because"] == "excluded by recipe pattern 'a'"


def test_reports_of_a_run_hold_the_same_table(tmp_path: Path):
    modules = json.loads((coverage(tmp_path) / "coverage.json").read_text())["modules"]
    assert coverage_rows(tmp_path) == folded(modules)


def test_a_quantized_checkpoint_shows_its_coverage(tmp_path: Path):
    seen = exhibit("quantized_checkpoint", coverage(tmp_path))
    assert seen.lines == (
        "6 of 9 linears quantized, 3 left at the source dtype", "KV cache fp8, scales 0.25 to 0.5"
    )  # fmt: skip
    assert seen.tables[1] == ("", [{"source_tensor": "x.inv_freq", "left_out_because": "a constant"}])
    assert seen.document["linears"] == 9


def test_statistics_show_their_report_and_the_widest_inputs(tmp_path: Path):
    report = {
        "tokens": 1024,
        "peaks": {"host_bytes": 7},
        "warnings": ["layer 1: dead"],
        "seconds_by_layer": [1, 2],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    for layer in range(2):
        tensors = {
            f"model.layers.{layer}.{kind}.input_amax": np.array([1, 10 * layer + number, 2], "float32")
            for number, kind in enumerate(
                ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.down_proj")
            )
        }
        save_file(tensors, tmp_path / f"layer-{layer:05}.safetensors")
    seen = exhibit("statistics", tmp_path)
    (_, facts), (_, inputs) = seen.tables
    assert facts == [{"what": "tokens", "value": 1024}, {"what": "peaks.host_bytes", "value": 7}]
    assert seen.warnings == ("layer 1: dead",)
    assert inputs[0] == {
        "input_of": "model.layers.1.mlp.down_proj", "largest": 13.0, "in_channel": 1, "median_channel": 2.0
    }  # fmt: skip
    assert len(inputs) == 6, "k_proj reads what q_proj reads"


def test_a_calibration_set_shows_its_report_and_its_page(tmp_path: Path):
    (tmp_path / "report.json").write_text(json.dumps({"sequences": 8, "warnings": ["short"]}))
    assert exhibit("calibration_set", tmp_path).lines == ()
    (tmp_path / "page.html").write_text("<!doctype html>")
    seen = exhibit("calibration_set", tmp_path)
    assert seen.lines == (f"page {tmp_path / 'page.html'}",)
    assert seen.tables == (("", [{"what": "sequences", "value": 8}]),)
    assert seen.warnings == ("short",)


def test_other_kinds_have_only_their_manifest(tmp_path: Path):
    assert exhibit("engine", tmp_path).tables == ()


def test_a_key_is_found_by_its_beginning(tmp_path: Path):
    store = open_store(tmp_path)
    one, other = "ab12cd" + "0" * 58, "ab12cd" + "1" * 58
    with store.write(one, kind="source", step={}, host={}) as draft:
        (draft.path / "x").write_text("1")
    assert find_key(store, "ab12cd") == find_key(store, one) == one
    assert find_key(store, "ab12c") is None, "too short to be meant as a key"
    assert find_key(store, "fedcba98") is None
    assert find_key(store, "demo/fp8@candidate") is None
    with store.write(other, kind="source", step={}, host={}) as draft:
        (draft.path / "x").write_text("2")
    with pytest.raises(
        NotFound, match="2 keys begin with 'ab12cd'; give more of one: ab12cd0000000000, ab12cd"
    ):
        find_key(store, "ab12cd")
