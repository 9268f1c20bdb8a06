"""Every format derived from statistics, against ModelOpt's own calibration and export on the same tokens.

Exceptions, with their reasons (calibration/formats/scales.py):
- fp8 weight bytes: rounded once in float32; ModelOpt rounds through bfloat16 as well;
- fp8 weight_scale of q/k/v and gate/up: the group's maximum; ModelOpt leaves one scale per linear.
Everything else is equal, byte for byte.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from calibration.errors import CheckpointError, QuantizationIncomplete
from calibration.model.linears import Layout
from calibration.statistics.statistics_artifact import Statistics, layer_file
from recipes.precision import Precision
from tests.calibration import oracle, reference
from tests.calibration.conftest import llama
from tests.calibration.recorded import record
from tests.jobs import build_modelopt
from tests.jobs import build_quantized as build

MIXED = {
    "default": "fp8",
    "except": {
        "model.layers.0.self_attn.[qkv]_proj": "fp8_rowwise",
        "model.layers.0.self_attn.o_proj": "int4_wo",
        "model.layers.1.self_attn.*": "none",
        "model.layers.1.mlp.down_proj": "int8_wo",
    },
}
CASES: dict[str, dict[str, Any]] = {
    "fp8": {"format": "fp8"},
    "fp8 with fp8 cache": {"format": "fp8", "kv_cache": "fp8"},
    "fp8_rowwise": {"format": "fp8_rowwise"},
    "int8_sq": {"format": "int8_sq", "smoothing": 1.0},
    "int8_sq at one half": {"format": "int8_sq", "smoothing": 0.5},
    "int8_sq at zero": {"format": "int8_sq", "smoothing": 0.0},
    "int4_awq": {"format": "int4_awq"},
    "w4a8_awq": {"format": "w4a8_awq", "kv_cache": "fp8"},
    "int8_wo": {"format": "int8_wo"},
    "int4_wo": {"format": "int4_wo"},
    "cache only": {"format": "none", "kv_cache": "fp8"},
    "layer left": {"format": {"default": "fp8", "except": {"model.layers.0.*": "none"}}},
    "kind left": {"format": {"default": "int8_wo", "except": {"*.down_proj": "none"}}},
    "mixed": {"format": MIXED, "kv_cache": "fp8"},
}
GROUPED = {linear for group in Layout("llama", 2).groups() for linear in group.linears}


def ignore(done: int, total: int, unit: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 384, (4, 32), generator=generator)


@pytest.fixture(scope="module")
def statistics(checkpoint: Path, tokens: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto").eval()
    return record(model, tokens, tmp_path_factory.mktemp("statistics"), batch_size=2)


def job(source, statistics, params) -> dict[str, Any]:
    inputs = {"source": str(source)} | ({"statistics": str(statistics)} if statistics else {})
    return {"params": params, "places": {}, "inputs": inputs}


def made(source, statistics, params: dict[str, Any], out: Path) -> Path:
    out.mkdir()
    build(job(source, statistics, params), out, ignore)
    return out


@dataclass
class Pair:
    ours: Path
    theirs: Path
    precision: Precision

    def tensors(self):
        return load_file(self.ours / "model.safetensors"), load_file(self.theirs / "model.safetensors")


@pytest.fixture(scope="module", params=CASES)
def pair(
    request: pytest.FixtureRequest,
    checkpoint: Path,
    statistics: Path,
    tokens: torch.Tensor,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pair:
    root, params = tmp_path_factory.mktemp("pair"), CASES[request.param]
    precision = Precision.parse(params["format"])
    calibrated = precision.needs != "none" or "kv_cache" in params
    ours = made(checkpoint, statistics if calibrated else None, params, root / "ours")
    model = oracle.calibrated(checkpoint, tokens, params, batch_size=2)
    if precision.needs == "search":
        oracle.smooth(model, Statistics(statistics))
    return Pair(ours, oracle.export(model, root / "theirs"), precision)


@pytest.mark.slow
def test_names_dtypes_and_shapes_are_modelopts(pair: Pair):
    ours, theirs = pair.tensors()
    assert {n: (t.dtype, t.shape) for n, t in ours.items()} == {
        n: (t.dtype, t.shape) for n, t in theirs.items()
    }


@pytest.mark.parametrize("name", ["config.json", "hf_quant_config.json"])
def test_configuration_is_modelopts(pair: Pair, name: str):
    assert reference.read_json(pair.ours / name) == reference.read_json(pair.theirs / name)


def test_bytes_are_modelopts_except_where_fp8_rounds_better(pair: Pair):
    ours, theirs = pair.tensors()
    compared = 0
    for name, tensor in ours.items():
        module, _, part = name.rpartition(".")
        fp8 = pair.precision.of(module).name == "fp8" and module in Layout("llama", 2).linears()
        if fp8 and (part == "weight" or (part == "weight_scale" and module in GROUPED)):
            continue
        assert torch.equal(tensor, theirs[name]), name
        compared += 1
    assert compared >= 20


def test_fp8_weights_are_rounded_once_under_the_group_s_largest_scale(pair: Pair, checkpoint: Path):
    ours, theirs = pair.tensors()
    source = load_file(checkpoint / "model.safetensors")
    for group in Layout("llama", 2).groups():
        if pair.precision.of(group.linears[0]).name == "fp8":
            scales = [theirs[f"{linear}.weight_scale"] for linear in group.linears]
            assert all(ours[f"{linear}.weight_scale"] == max(scales) for linear in group.linears)
    for name, tensor in ours.items():
        if tensor.dtype == torch.float8_e4m3fn:
            scale = ours[f"{name}_scale"]
            quotient = source[name].float() / (scale[:, None] if scale.dim() else scale)
            assert torch.equal(tensor.double(), reference.nearest_e4m3(quotient)), name


KL_WITHIN = {  # nats; about twice what is seen
    "none": 1e-6,
    "int8_wo": 0.003,
    "fp8": 0.01,
    "fp8_rowwise": 0.01,
    "int8_sq": 0.004,
    "int4_awq": 0.15,
    "w4a8_awq": 0.15,
    "int4_wo": 0.25,
}


def kl(original, quantized) -> float:
    p, q = original.log_softmax(-1), quantized.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_the_checkpoint_runs_in_plain_transformers_close_to_the_source(
    pair: Pair, checkpoint: Path, tokens: torch.Tensor
):
    with torch.no_grad():
        original = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)(tokens).logits
        found = kl(original, reference.model(pair.ours)(tokens).logits)
    assert found < max(KL_WITHIN[fmt.name] for fmt in pair.precision.formats)


@pytest.mark.parametrize("case", ["layer left", "int8_sq at one half", "cache only", "int8 cache"])
def test_both_methods_of_calibration_write_the_same_checkpoint(
    case: str, checkpoint: Path, statistics: Path, tokens: torch.Tensor, tmp_path: Path
):
    params = CASES.get(case, {"format": "fp8", "kv_cache": "int8"})
    save_file({"tokens": tokens.int()}, tmp_path / "tokens.safetensors")
    ours, theirs = made(checkpoint, statistics, params, tmp_path / "ours"), tmp_path / "theirs"
    theirs.mkdir()
    inputs = {"source": str(checkpoint), "calibration_set": str(tmp_path)}
    own = {"params": params, "places": {}, "inputs": inputs}
    build_modelopt(own, theirs, ignore)
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == {
        path.name: path.read_bytes() for path in theirs.iterdir()
    }


SEVERAL = {
    "default": "int4_awq",
    "except": {
        "model.layers.0.self_attn.[qkv]_proj": "w4a8_awq",
        "model.layers.0.self_attn.o_proj": "int8_sq",
        "model.layers.0.mlp.down_proj": "fp8",
        "model.layers.1.mlp.gate_proj": "int8_sq",
        "model.layers.1.mlp.up_proj": "int8_sq",
        "model.layers.1.mlp.down_proj": "none",
    },
}


def test_every_linear_of_a_mixed_checkpoint_is_as_in_the_checkpoint_of_its_format(
    checkpoint: Path, statistics: Path, tmp_path: Path
):
    precision = Precision.parse(SEVERAL)
    mixed = load_file(
        made(checkpoint, statistics, {"format": SEVERAL}, tmp_path / "mixed") / "model.safetensors"
    )
    uniform = {
        fmt.name: load_file(
            made(checkpoint, statistics, {"format": fmt.name}, tmp_path / fmt.name) / "model.safetensors"
        )
        for fmt in precision.formats
    }
    norms = {f"{group.norm}.weight": group.linears[0] for group in Layout("llama", 2).groups()}
    accounted = 0
    for module in [*Layout("llama", 2).linears(), *norms]:
        expected = uniform[precision.of(norms.get(module, module)).name]
        names = [name for name in expected if name == module or name.rpartition(".")[0] == module]
        assert names == [name for name in mixed if name == module or name.rpartition(".")[0] == module]
        assert all(torch.equal(mixed[name], expected[name]) for name in names)
        accounted += len(names)
    assert accounted == len(mixed) - 3  # embedding, last norm, head


def test_a_mixed_checkpoint_names_the_format_of_each_quantized_linear(
    checkpoint: Path, statistics: Path, tmp_path: Path
):
    out = made(checkpoint, statistics, {"format": SEVERAL}, tmp_path / "out")
    details = reference.read_json(out / "hf_quant_config.json")["quantization"]
    assert details["quant_algo"] == "MIXED_PRECISION"
    assert list(details["quantized_layers"]) == [
        n for n in Layout("llama", 2).linears() if n != "model.layers.1.mlp.down_proj"
    ]
    assert details["quantized_layers"]["model.layers.0.self_attn.q_proj"] == {
        "quant_algo": "W4A8_AWQ",
        "group_size": 128,
        "has_zero_point": False,
        "pre_quant_scale": True,
    }


def test_an_int8_cache_follows_the_pattern_of_the_fp8_one(checkpoint: Path, statistics: Path, tmp_path: Path):
    out = made(checkpoint, statistics, {"format": "none", "kv_cache": "int8"}, tmp_path / "out")
    ours, found = load_file(out / "model.safetensors"), Statistics(statistics)
    for layer in range(2):
        attention = f"model.layers.{layer}.self_attn"
        for kind, field in (("k", "key_amax"), ("v", "value_amax")):
            scale = ours[f"{attention}.{kind}_proj.{kind}_scale"]
            assert (scale.dtype, scale.dim()) == (torch.float32, 0)
            assert scale == found.tensor(f"{attention}.{field}").max() / 127
    assert reference.read_json(out / "hf_quant_config.json")["quantization"]["kv_cache_quant_algo"] == "INT8"


def test_coverage_tells_format_reason_and_scales(checkpoint: Path, statistics: Path, tmp_path: Path):
    params = {"format": {"default": "fp8", "except": {"*.0.mlp.down_proj": "none"}}, "kv_cache": "fp8"}
    coverage = reference.read_json(made(checkpoint, statistics, params, tmp_path / "out") / "coverage.json")
    modules = {entry["module"]: entry for entry in coverage["modules"]}
    left = {name: entry["reason"] for name, entry in modules.items() if entry["actual"] == "source"}
    assert left == {
        "model.layers.0.mlp.down_proj": "excluded by recipe pattern '*.0.mlp.down_proj'",
        "lm_head": "excluded by the preset FP8_DEFAULT_CFG",
    }
    assert coverage["format"] == params["format"]
    assert (coverage["quantized"], coverage["left"]) == (13, 2)
    assert set(modules["model.layers.1.mlp.down_proj"]["scales"]) == {"weight_scale", "input_scale"}
    assert coverage["kv_cache"]["type"] == "fp8"
    assert all(scale > 0 for scale in coverage["kv_cache"]["scales"].values())
    assert len(coverage["kv_cache"]["scales"]) == 4


def test_format_none_copies_every_tensor(checkpoint: Path, tmp_path: Path):
    out = made(checkpoint, None, {"format": "none"}, tmp_path / "out")
    ours, source = (load_file(root / "model.safetensors") for root in (out, checkpoint))
    assert ours.keys() == source.keys()
    assert all(torch.equal(ours[name], source[name]) for name in source)
    assert not (out / "hf_quant_config.json").exists()
    assert reference.read_json(out / "config.json") == reference.read_json(checkpoint / "config.json")


def test_the_step_reports_progress_and_repeats_itself_byte_for_byte(
    checkpoint: Path, statistics: Path, tmp_path: Path
):
    events, runs = [], []
    for number in range(2):
        out = tmp_path / str(number)
        out.mkdir()
        build(
            job(checkpoint, statistics, {"format": MIXED, "kv_cache": "int8"}),
            out,
            lambda *e: events.append(e),
        )
        runs.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert runs[0] == runs[1]
    assert {"config.json", "coverage.json", "model.safetensors", "tokenizer.json"} <= runs[0].keys()
    assert [e for e in events if e[0] == e[1]] == [(21, 21, "tensors")] * 2


def test_weights_in_several_files_make_the_same_checkpoint(
    checkpoint: Path, statistics: Path, tmp_path: Path
):
    llama().save_pretrained(tmp_path / "source", max_shard_size="200KB")
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 3
    whole = made(checkpoint, statistics, {"format": "int4_awq"}, tmp_path / "whole")
    split = made(tmp_path / "source", statistics, {"format": "int4_awq"}, tmp_path / "split")
    assert (whole / "model.safetensors").read_bytes() == (split / "model.safetensors").read_bytes()


def test_a_tied_head_is_written_once(statistics: Path, tmp_path: Path):
    llama(tie_word_embeddings=True).save_pretrained(tmp_path / "source")
    out = made(tmp_path / "source", statistics, {"format": "fp8"}, tmp_path / "out")
    ours = load_file(out / "model.safetensors")
    assert "lm_head.weight" not in ours
    assert ours["model.embed_tokens.weight"].dtype == torch.bfloat16


def saved(tmp_path: Path, change=lambda model: None, **settings) -> Path:
    """A changed checkpoint."""
    model = llama(**settings)
    with torch.no_grad():
        change(model)
    model.save_pretrained(tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("name", ["int8_wo", "fp8_rowwise", "int4_wo"])
def test_zero_channels_get_a_scale_of_one_and_are_counted(name: str, tmp_path: Path):
    def silence(model) -> None:
        model.model.layers[0].mlp.up_proj.weight[3:5] = 0

    out = made(saved(tmp_path, silence), None, {"format": name}, tmp_path / "out")
    scale = load_file(out / "model.safetensors")["model.layers.0.mlp.up_proj.weight_scale"]
    assert scale[3:5].flatten().tolist() == pytest.approx([1.0, 1.0])
    entries = {e["module"]: e for e in reference.read_json(out / "coverage.json")["modules"]}
    assert entries["model.layers.0.mlp.up_proj"]["zero_scales"] == 2
    assert entries["model.layers.0.mlp.gate_proj"]["zero_scales"] == 0


def rewritten(statistics: Path, out, change):
    """Statistics of which `change` made something else."""
    out.mkdir()
    for path in statistics.glob("*.safetensors"):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, out / path.name)
    return out


def put(name: str, value: float):
    def change(tensors) -> None:
        if name in tensors:
            tensors[name] = torch.full_like(tensors[name], value)

    return change


@pytest.mark.parametrize(
    ("params", "change", "said"),
    [
        (
            {"format": "fp8"},
            put("model.layers.1.mlp.up_proj.input_amax", float("nan")),
            "up_proj.input_amax: 128 of 128",
        ),
        (
            {"format": "fp8"},
            put("model.layers.0.self_attn.o_proj.weight_amax", 0.0),
            "o_proj: weight_scale ranges from 0.0",
        ),
        (
            {"format": "int8_sq"},
            put("model.layers.0.mlp.down_proj.input_amax", 0.0),
            "input_scale ranges from 0.0",
        ),
        (
            {"format": "int4_awq"},
            put("model.layers.0.mlp.down_proj.awq_smoothing", 0.0),
            "256 factors are not positive",
        ),
        (
            {"format": "none", "kv_cache": "fp8"},
            put("model.layers.1.self_attn.value_amax", 0.0),
            r"layers\.1\.self_attn\.value_amax is zero",
        ),
    ],
)
def test_values_that_no_scale_fits_are_a_failure_that_names_them(
    checkpoint: Path, statistics: Path, tmp_path: Path, params: dict[str, Any], change, said: str
):
    changed = rewritten(statistics, tmp_path / "statistics", change)
    with pytest.raises(QuantizationIncomplete, match=said):
        made(checkpoint, changed, params, tmp_path / "out")


def test_statistics_of_fewer_layers_are_refused(checkpoint: Path, statistics: Path, tmp_path: Path):
    changed = rewritten(statistics, tmp_path / "statistics", lambda tensors: None)
    (changed / layer_file(1)).unlink()
    with pytest.raises(
        CheckpointError, match=r"no model\.layers\.1\..*recorded for another model or with less"
    ):
        made(checkpoint, changed, {"format": "fp8"}, tmp_path / "out")


def test_statistics_of_another_width_are_refused(checkpoint: Path, statistics: Path, tmp_path: Path):
    source = saved(tmp_path, intermediate_size=384)
    for name in ("fp8", "int8_sq", "int4_awq", "w4a8_awq"):
        with pytest.raises(CheckpointError, match=r"mlp\.\w+: .*256.*channels, this one has .*384"):
            made(source, statistics, {"format": name}, tmp_path / name)


@pytest.mark.parametrize("params", [{"format": "fp8"}, {"format": "none", "kv_cache": "int8"}])
def test_calibrated_scales_need_statistics(checkpoint: Path, tmp_path: Path, params: dict[str, Any]):
    with pytest.raises(CheckpointError, match="calibrated scales; give the statistics"):
        made(checkpoint, None, params, tmp_path / "out")


def test_a_fused_group_of_two_formats_is_refused(checkpoint: Path, tmp_path: Path):
    split = {"default": "int8_wo", "except": {"model.layers.1.self_attn.k_proj": "int4_wo"}}
    with pytest.raises(
        QuantizationIncomplete, match=r"layers\.1\.self_attn\.k_proj int4_wo.*give them one format"
    ):
        made(checkpoint, None, {"format": split}, tmp_path / "out")
    split["except"] = {"model.layers.0.mlp.up_proj": "none"}
    with pytest.raises(
        QuantizationIncomplete, match=r"gate_proj int8_wo, model\.layers\.0\.mlp\.up_proj source"
    ):
        made(checkpoint, None, {"format": split}, tmp_path / "out2")


@pytest.mark.parametrize("name", ["int4_wo", "int4_awq"])
def test_blocks_that_do_not_fit_are_refused_with_the_linear(name: str, statistics: Path, tmp_path: Path):
    source = saved(tmp_path, intermediate_size=192)
    complaint = r"layers\.0\.mlp\.down_proj: 128 x 192 channels.*blocks of 128"
    narrow = rewritten(
        statistics,
        tmp_path / "statistics",
        lambda tensors: tensors.update(
            {n: t[..., :192].contiguous() for n, t in tensors.items() if "mlp.down" in n and t.dim()}
        ),
    )
    with pytest.raises(CheckpointError, match=complaint):
        made(source, narrow, {"format": name}, tmp_path / "out")


def test_a_source_that_is_not_finite_is_refused(tmp_path: Path):
    def poison(model) -> None:
        model.model.layers[1].mlp.up_proj.weight[2, 3] = float("nan")

    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight holds 1 NaN"):
        made(saved(tmp_path, poison), None, {"format": "int8_wo"}, tmp_path / "out")
