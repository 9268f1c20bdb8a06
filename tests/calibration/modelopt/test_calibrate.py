"""Every format, against ModelOpt's own Hugging Face export of the same calibrated model.

Exceptions, with their reasons (calibration/formats/scales.py):
- fp8 weight bytes: rounded once in float32; ModelOpt rounds through bfloat16 as well;
- fp8 weight_scale of q/k/v and gate/up: the group's maximum; ModelOpt leaves one scale per linear.
Everything else is equal, byte for byte.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from modelopt.torch.export.unified_export_hf import requantize_resmooth_fused_llm_layers
from safetensors.torch import load_file, save_file

from calibration.errors import CheckpointError, QuantizationIncomplete
from calibration.model.checkpoint_reader import Source
from calibration.model.linears import Layout
from calibration.modelopt.calibrate import calibrate, configuration, load, load_tokens
from calibration.modelopt.findings import find, linear_modules, weight_maxima
from calibration.quantize.checkpoint_export import write
from calibration.quantize.coverage import SOURCE
from recipes.formats import FORMATS, Format
from recipes.precision import Precision
from tests.calibration import oracle, reference
from tests.calibration.conftest import llama
from tests.jobs import build_modelopt as build

QUANTIZED = [name for name, fmt in FORMATS.items() if fmt.modelopt_cfg]
GROUPS = Layout("llama", 2).groups()


def ignore(done: int, total: int, unit: str) -> None:
    """Progress that nobody watches."""


@dataclass
class Pair:
    """Our checkpoint and ModelOpt's export of one calibrated model."""

    ours: Path
    theirs: Path
    simulated: torch.Tensor
    """Logits of the calibrated model in ModelOpt's simulation, in float32."""

    def tensors(self):
        return load_file(self.ours / "model.safetensors"), load_file(self.theirs / "model.safetensors")


def logits(model, tokens: torch.Tensor):
    with torch.no_grad():
        return model(input_ids=tokens).logits.float()


def simulation(model, fmt: Format):
    """A float32 copy of the calibrated model, whose fused groups share a scale per tensor as ours do."""
    copied = copy.deepcopy(model).float()
    for group in GROUPS if fmt.granularity == "tensor" else ():
        quantizers = [copied.get_submodule(name).weight_quantizer for name in group.linears]
        shared = max(quantizer.amax for quantizer in quantizers)
        for quantizer in quantizers:
            quantizer.amax = shared
    return copied


@pytest.fixture(scope="module")
def calibration_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("calibration_set")
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 384, (4, 32), generator=generator, dtype=torch.int32)
    save_file({"tokens": tokens}, root / "tokens.safetensors")
    return root


@pytest.fixture(scope="module", params=QUANTIZED)
def fmt(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]


@pytest.fixture(scope="module")
def pair(
    fmt: Format, checkpoint: Path, calibration_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    root = tmp_path_factory.mktemp(fmt.name)
    ours, theirs = root / "ours", root / "theirs"
    ours.mkdir()
    source = Source.open(checkpoint)
    model = load(source)
    precision, maxima = Precision(fmt), weight_maxima(model, fmt)
    tokens = load_tokens(calibration_set)
    calibrate(
        model,
        configuration(precision, "auto", 1.0, Layout("llama", 2)),
        tokens if fmt.calibrated else None,
        2,
        ignore,
    )
    write(source, find(model, precision, maxima, 1.0), ours, ignore)
    requantize_resmooth_fused_llm_layers(model)  # the export's first step, which it may repeat
    simulated = logits(simulation(model, fmt), tokens)
    return Pair(ours, oracle.export(model, theirs), simulated)


@pytest.mark.slow
def test_names_dtypes_and_shapes_are_modelopts(pair: Pair):
    ours, theirs = pair.tensors()
    assert {n: (t.dtype, t.shape) for n, t in ours.items()} == {
        n: (t.dtype, t.shape) for n, t in theirs.items()
    }


@pytest.mark.parametrize("name", ["config.json", "hf_quant_config.json"])
def test_configuration_is_modelopts(pair: Pair, name: str):
    assert reference.read_json(pair.ours / name) == reference.read_json(pair.theirs / name)


def test_bytes_are_modelopts_except_where_fp8_rounds_better(fmt: Format, pair: Pair):
    ours, theirs = pair.tensors()
    grouped = {f"{linear}.weight_scale" for group in GROUPS for linear in group.linears}
    compared = 0
    for name, tensor in ours.items():
        if fmt.name == "fp8" and (tensor.dtype == torch.float8_e4m3fn or name in grouped):
            continue
        assert torch.equal(tensor, theirs[name]), name
        compared += 1
    assert compared >= 25


def test_a_fused_group_shares_its_scales(fmt: Format, pair: Pair):
    ours, theirs = pair.tensors()
    for group in GROUPS:
        for part in (
            "input_scale",
            "pre_quant_scale",
            *(["weight_scale"] if fmt.granularity == "tensor" else []),
        ):
            values = [ours[f"{linear}.{part}"] for linear in group.linears if f"{linear}.{part}" in ours]
            assert all(torch.equal(value, values[0]) for value in values)
            if values and part == "weight_scale":
                assert (
                    values[0] == torch.stack([theirs[f"{linear}.{part}"] for linear in group.linears]).max()
                )


LOGITS_WITHIN = {
    "fp8": 0.01,
    "fp8_rowwise": 0.08,
    "int8_sq": 0.03,
    "int8_wo": 0.003,
    "int4_awq": 0.04,
    "w4a8_awq": 0.1,
    "int4_wo": 0.03,
}
"""Relative distance: ModelOpt's simulation multiplies by 1/scale where the bytes are made by dividing, so
that weights and activations at a tie may be one step apart; the rest of the two models is the same."""


def test_dequantized_logits_match_modelopts_simulation(
    fmt: Format, pair: Pair, checkpoint: Path, calibration_set: Path
):
    tokens = load_tokens(calibration_set)
    original = logits(load(Source.open(checkpoint)).float(), tokens)
    distance = (logits(reference.model(pair.ours), tokens) - pair.simulated).norm() / original.norm()
    damage = (pair.simulated - original).norm() / original.norm()
    assert distance < LOGITS_WITHIN[fmt.name]
    assert distance < damage / 1.5


def test_coverage_accounts_for_every_linear(fmt: Format, pair: Pair, checkpoint: Path):
    coverage = reference.read_json(pair.ours / "coverage.json")
    modules = {entry["module"]: entry for entry in coverage["modules"]}
    assert modules.keys() == linear_modules(llama()).keys()
    assert modules["lm_head"]["actual"] == SOURCE
    assert modules["lm_head"]["reason"] == f"excluded by the preset {fmt.modelopt_cfg}"
    inner = [entry for name, entry in modules.items() if name != "lm_head"]
    assert {entry["actual"] for entry in inner} == {fmt.name}
    assert all(0 < low <= high for entry in inner for low, high in entry["scales"].values())
    assert (coverage["quantized"], coverage["left"]) == (14, 1)


def test_tokenizer_files_travel_along(pair: Pair, checkpoint: Path):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (pair.ours / name).read_bytes() == (checkpoint / name).read_bytes()


@pytest.mark.parametrize("fmt", ["fp8"], indirect=True)
def test_fp8_weights_are_correctly_rounded_and_modelopts_are_not(fmt: Format, pair: Pair, checkpoint: Path):
    ours, theirs = pair.tensors()
    weights = load_file(checkpoint / "model.safetensors")
    wrong = total = 0
    for name, tensor in ours.items():
        if tensor.dtype == torch.float8_e4m3fn:
            expected = reference.nearest_e4m3(weights[name].float() / ours[f"{name}_scale"])
            assert torch.equal(tensor.double(), expected), name
            theirs_expected = reference.nearest_e4m3(weights[name].float() / theirs[f"{name}_scale"])
            wrong += int((theirs[name].double() != theirs_expected).sum())
            total += tensor.numel()
    assert 0.01 < wrong / total < 0.1


def job(source, calibration_set, name: str) -> dict[str, Any]:
    inputs = {"source": str(source)}
    if FORMATS[name].calibrated:
        inputs["calibration_set"] = str(calibration_set)
    return {"params": {"format": name}, "places": {}, "inputs": inputs}


@pytest.mark.parametrize("name", ["none", "fp8", "int8_wo"])
def test_the_step_reports_progress_and_repeats_itself_byte_for_byte(
    name: str, checkpoint: Path, calibration_set: Path, tmp_path: Path
):
    events, runs = [], []
    for number in range(2):
        out = tmp_path / str(number)
        out.mkdir()
        build(job(checkpoint, calibration_set, name), out, lambda *event: events.append(event))
        runs.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert runs[0] == runs[1]
    assert {"config.json", "coverage.json", "model.safetensors", "tokenizer.json"} <= runs[0].keys()
    units = {unit for done, total, unit in events if done == total > 0}
    assert units == ({"tokens", "tensors"} if name == "fp8" else {"tensors"})


def test_format_none_copies_every_tensor(checkpoint: Path, tmp_path: Path):
    build(job(checkpoint, None, "none"), tmp_path, ignore)
    ours, source = (load_file(root / "model.safetensors") for root in (tmp_path, checkpoint))
    assert ours.keys() == source.keys()
    assert all(torch.equal(ours[name], source[name]) for name in source)
    assert not (tmp_path / "hf_quant_config.json").exists()
    assert reference.read_json(tmp_path / "config.json") == reference.read_json(checkpoint / "config.json")


def saved(tmp_path: Path, change=lambda model: None, **settings):
    """A changed checkpoint, and an empty directory for the result."""
    root, out = tmp_path / "source", tmp_path / "out"
    model = llama(**settings)
    with torch.no_grad():
        change(model)
    model.save_pretrained(root)
    out.mkdir()
    return root, out


def test_a_tied_head_is_written_once_as_modelopt_does(calibration_set: Path, tmp_path: Path):
    root, out = saved(tmp_path, tie_word_embeddings=True)
    build(job(root, calibration_set, "fp8"), out, ignore)
    ours = load_file(out / "model.safetensors")
    assert "lm_head.weight" not in ours
    assert ours["model.embed_tokens.weight"].dtype == torch.bfloat16


def test_weights_in_several_files_are_read_through_their_index(
    checkpoint: Path, calibration_set: Path, tmp_path: Path
):
    root, whole, split = (tmp_path / name for name in ("source", "whole", "split"))
    llama().save_pretrained(root, max_shard_size="200KB")
    assert len(list(root.glob("*.safetensors"))) > 3
    for source, out in ((checkpoint, whole), (root, split)):
        out.mkdir()
        build(job(source, calibration_set, "int8_wo"), out, ignore)
    assert (whole / "model.safetensors").read_bytes() == (split / "model.safetensors").read_bytes()


def test_zero_channels_get_a_scale_of_one_and_are_counted(tmp_path: Path):
    def silence(model) -> None:
        model.model.layers[0].mlp.up_proj.weight[3:5] = 0

    root, out = saved(tmp_path, silence)
    build(job(root, None, "int8_wo"), out, ignore)
    scale = load_file(out / "model.safetensors")["model.layers.0.mlp.up_proj.weight_scale"]
    assert scale[3:5].tolist() == pytest.approx([1.0, 1.0])
    entries = {e["module"]: e for e in reference.read_json(out / "coverage.json")["modules"]}
    assert entries["model.layers.0.mlp.up_proj"]["zero_scales"] == 2
    assert entries["model.layers.0.mlp.gate_proj"]["zero_scales"] == 0


def test_a_weight_of_zeros_is_a_failure_that_names_the_module(calibration_set: Path, tmp_path: Path):
    def silence(model) -> None:
        model.model.layers[1].mlp.down_proj.weight.zero_()

    root, out = saved(tmp_path, silence)
    with pytest.raises(
        QuantizationIncomplete, match=r"layers\.1\.mlp\.down_proj: weight_scale ranges from 0\.0"
    ):
        build(job(root, calibration_set, "fp8"), out, ignore)


def test_blocks_that_do_not_fit_are_refused_before_calibration(calibration_set: Path, tmp_path: Path):
    root, out = saved(tmp_path, intermediate_size=192)
    with pytest.raises(
        CheckpointError, match=r"layers\.0\.mlp\.down_proj: 128 x 192 channels.*blocks of 128"
    ):
        build(job(root, calibration_set, "int4_awq"), out, ignore)


def test_activations_that_overflow_are_a_failure(calibration_set: Path, tmp_path: Path):
    def blow_up(model) -> None:
        model.model.layers[0].mlp.down_proj.weight.fill_(3e38)

    root, out = saved(tmp_path, blow_up)
    with pytest.raises(QuantizationIncomplete, match="activations became NaN or infinite"):
        build(job(root, calibration_set, "fp8"), out, ignore)
