"""Every supported family: linears as ModelOpt writes them; its own tensors (biases, q/k norms) unchanged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from calibration.model.checkpoint_reader import Source
from calibration.model.linears import KINDS, Layout
from calibration.modelopt.calibrate import load
from calibration.statistics.statistics_artifact import Statistics
from recipes.precision import Precision
from tests.calibration import oracle
from tests.calibration.families import CONFIGS
from tests.calibration.recorded import record
from tests.jobs import build_quantized as build

SIZES = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": False,
    "architectures": ["X"],
}
PARAMS: dict[str, dict[str, Any]] = {
    "fp8": {"format": "fp8", "kv_cache": "fp8"},
    "int8_sq": {"format": "int8_sq", "smoothing": 0.5, "kv_cache": "fp8"},
    "w4a8_awq": {"format": "w4a8_awq"},
    "fp8_rowwise": {"format": "fp8_rowwise"},
}
TOKENS = torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(2))


def test_every_family_is_tried():
    assert set(CONFIGS) == {name for name, kind in KINDS.items() if kind.experts is None}  # test_experts.py


@pytest.fixture(scope="module", params=CONFIGS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Name, checkpoint and statistics of a family's small model, whose biases and norms are not trivial."""
    root = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(CONFIGS[request.param](**SIZES)).to(torch.bfloat16).eval()
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5)
            elif ".layers." in name:
                tensor[:, ::16] *= 8
    made.save_pretrained(root / "source")
    made = load(Source.open(root / "source"))
    return request.param, root / "source", record(made, TOKENS, root / "statistics", batch_size=3)


@pytest.mark.slow
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_a_family_is_quantized_as_modelopt_does(family, params, tmp_path: Path):
    name, source, statistics = family
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    inputs = {"source": str(source), "statistics": str(statistics)}
    build({"params": params, "places": {}, "inputs": inputs}, ours, lambda *_: None)
    model = oracle.calibrated(source, TOKENS, params, batch_size=3)
    if Precision.parse(params["format"]).needs == "search":
        oracle.smooth(model, Statistics(statistics))
    oracle.export(model, theirs)
    before, after, expected = (load_file(p / "model.safetensors") for p in (source, ours, theirs))
    names = Layout(name, 2)
    beside = unfolded(names) if params["format"] == "w4a8_awq" and name.startswith("gemma") else {}
    assert after.keys() == expected.keys() | beside.keys()
    better = fp8_exceptions(names) if params["format"] == "fp8" else {*beside, *beside.values()}
    assert [n for n in after if n not in better and not torch.equal(after[n], expected[n])] == []
    own = [n for n in before if n.endswith((".bias", "_norm.weight"))]
    assert all(torch.equal(after[n], before[n]) for n in own)


def unfolded(names: Layout):
    """Smoothing that stays beside the linears -> the norm that ModelOpt folds it into."""
    return {f"{linear}.pre_quant_scale": f"{g.norm}.weight" for g in names.groups() for linear in g.linears}


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"], indirect=True)
def test_gemmas_norms_stay_and_modelopts_carry_the_same_factors(family, tmp_path: Path):
    name, source, statistics = family
    ours, params = tmp_path / "ours", PARAMS["w4a8_awq"]
    ours.mkdir()
    inputs = {"source": str(source), "statistics": str(statistics)}
    build({"params": params, "places": {}, "inputs": inputs}, ours, lambda *_: None)
    model = oracle.calibrated(source, TOKENS, params, batch_size=3)
    oracle.smooth(model, Statistics(statistics))
    oracle.export(model, tmp_path / "theirs")
    before, after, theirs = (load_file(p / "model.safetensors") for p in (source, ours, tmp_path / "theirs"))
    for factor, norm in unfolded(Layout(name, 2)).items():
        assert torch.equal(after[norm], before[norm])
        whole = (1 + before[norm].float()) * after[factor].float()
        # the sum, the product and the difference are rounded, each by up to 2**-8 of itself
        error = (1 + theirs[norm].float() - whole).abs()
        assert (error <= 2**-8 * (3 * whole + 1)).all()
        assert not torch.equal(theirs[norm], before[norm])


def fp8_exceptions(names: Layout):
    """Tensors of fp8 that ModelOpt rounds twice, or leaves different within a group."""
    grouped = [linear for group in names.groups() for linear in group.linears]
    return {f"{linear}.weight" for linear in names.linears()} | {
        f"{linear}.weight_scale" for linear in grouped
    }
