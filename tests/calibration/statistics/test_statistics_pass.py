import copy
import json
from pathlib import Path

import modelopt.torch.quantization as mtq
import pytest
import torch
from safetensors.torch import load_file

from calibration.model.linears import layout
from calibration.statistics.statistics_artifact import Statistics
from tests.calibration.recorded import record
from tests.calibration.statistics.passes import FAMILIES, job, load, make, outputs, run, write_tokens

LINEARS = [
    f"model.layers.{layer}.{name}_proj"
    for layer in range(3)
    for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
]
EXACT = ("input_amax", "input_sample", "weight_amax", "weight_in_amax", "key_amax", "value_amax")


def whole_model(model, tokens_ST: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Hidden states after the last decoder layer, of the whole model at once."""
    model.model.norm = torch.nn.Identity()
    with torch.no_grad():
        parts = [
            model.base_model(input_ids=b.long(), use_cache=False)[0] for b in tokens_ST.split(batch_size)
        ]
    return torch.cat(parts)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_those_of_the_whole_model_bit_for_bit(tmp_path: Path, family: str, dtype: str):
    model = make(tmp_path / "source", family, dtype)
    tokens_ST = write_tokens(tmp_path / "tokens")
    run(job(tmp_path / "source", tmp_path / "tokens", tmp_path / "resume", record="ranges"), tmp_path / "out")
    found = outputs(tmp_path / "resume", 3, 7, 3, (48, 128), getattr(torch, dtype))
    assert found.equal(whole_model(model, tokens_ST, 3))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_is_what_the_whole_model_shows_to_hooks(tmp_path: Path, family: str):
    model = make(tmp_path / "source", family)
    tokens_ST = write_tokens(tmp_path / "tokens")
    run(job(tmp_path / "source", tmp_path / "tokens", tmp_path / "resume"), tmp_path / "out")
    record(model, tokens_ST, tmp_path / "expected", batch_size=3)
    found, expected = Statistics(tmp_path / "out"), Statistics(tmp_path / "expected")
    assert set(found.places) == set(expected.places)
    for name in expected.places:
        field = name.rpartition(".")[2]
        assert found.tensor(name).dtype == expected.tensor(name).dtype, name
        if field in EXACT:
            assert found.tensor(name).equal(expected.tensor(name)), name
        elif field == "input_mean":
            torch.testing.assert_close(found.tensor(name), expected.tensor(name), rtol=2e-6, atol=0)
    for layer in range(3):  # of the search only what every outcome has: its own tests judge it
        group = layout(model.config.to_dict()).groups()[2 * layer]
        names = [f"{linear}.awq_smoothing" for linear in group.linears]
        assert len({tuple(found.tensor(name).tolist()) for name in names}) == 1
        losses = found.tensor(f"model.layers.{layer}.mlp.down_proj.awq_loss")
        assert losses.shape == (11,)
        assert (losses > 0).all()


def test_linears_that_int4_blocks_do_not_fit_are_not_searched(tmp_path: Path):
    make(tmp_path / "source", intermediate_size=200)
    write_tokens(tmp_path / "tokens")
    out = run(job(tmp_path / "source", tmp_path / "tokens", tmp_path / "resume"), tmp_path / "out")
    found = Statistics(out)
    assert "model.layers.0.mlp.down_proj.awq_loss" not in found.places
    assert "model.layers.0.mlp.down_proj.input_amax" in found.places
    assert "model.layers.0.mlp.up_proj.awq_loss" in found.places


def test_fp8_input_maxima_are_modelopts_bit_for_bit(tmp_path: Path):
    model, statistics = measured(tmp_path, "llama")
    calibrate(model, tmp_path, mtq.FP8_DEFAULT_CFG)
    for name in LINEARS:
        theirs = model.get_submodule(name).input_quantizer.amax.float()
        assert statistics.tensor(f"{name}.input_amax").max().equal(theirs), name


def test_smoothquant_input_maxima_are_modelopts_bit_for_bit(tmp_path: Path):
    model, statistics = measured(tmp_path, "llama")
    calibrate(model, tmp_path, mtq.INT8_SMOOTHQUANT_CFG)
    for name in LINEARS:
        theirs_I = model.get_submodule(name).input_quantizer._amax_for_smoothing.flatten()
        assert statistics.tensor(f"{name}.input_amax").equal(theirs_I), name


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_key_and_value_maxima_are_modelopts_bit_for_bit(tmp_path: Path, family: str):
    model, statistics = measured(tmp_path, family)
    rules = [{"quantizer_name": "*", "enable": False}, *mtq.FP8_KV_CFG["quant_cfg"]]
    calibrate(model, tmp_path, {"quant_cfg": rules, "algorithm": "max"})
    for number, layer in enumerate(model.model.layers):
        for field, quantizer in (("key_amax", "k_bmm_quantizer"), ("value_amax", "v_bmm_quantizer")):
            ours = statistics.tensor(f"model.layers.{number}.self_attn.{field}").max()
            assert ours.equal(getattr(layer.self_attn, quantizer).amax.float())


def measured(tmp_path: Path, family: str):
    """A model and the ranges that a pass over it found."""
    model = make(tmp_path / "source", family)
    write_tokens(tmp_path / "tokens")
    work = job(tmp_path / "source", tmp_path / "tokens", tmp_path / "resume", record="ranges")
    return model, Statistics(run(work, tmp_path / "out"))


def calibrate(model, tmp_path: Path, preset) -> None:
    """Runs ModelOpt's own calibration on the same batches."""
    tokens_ST = load_file(tmp_path / "tokens" / "tokens.safetensors")["tokens"].long()

    def forward(model) -> None:
        for batch_BT in tokens_ST.split(3):
            model.base_model(input_ids=batch_BT, use_cache=False)

    with torch.no_grad():
        mtq.quantize(model, copy.deepcopy(preset), forward)


def test_the_report_says_how_it_went(tmp_path: Path):
    make(tmp_path / "source")
    write_tokens(tmp_path / "tokens")
    work = job(tmp_path / "source", tmp_path / "tokens", tmp_path / "resume", record="ranges")
    out = run(work, tmp_path / "out")
    report = json.loads((out / "report.json").read_text())
    assert (report["tokens"], report["sequences"], report["batch_size"]) == (336, 7, 3)
    assert len(report["layer_seconds"]) == 3
    assert report["layers_resumed"] == 0
    assert report["device"] == "cpu"
    assert report["memory_bytes"]["host"]["measured"] > 100e6
    assert not any("awq" in name for name in load_file(out / "layer-00000.safetensors"))
    assert load(tmp_path / "source").config.num_hidden_layers == len(list(out.glob("layer-*")))
