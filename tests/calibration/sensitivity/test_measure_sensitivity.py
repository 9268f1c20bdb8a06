"""What quantization costs a linear: ModelOpt's fake quantization as the oracle, and what is made of the numbers."""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import modelopt.torch.quantization as mtq
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaForCausalLM

from calibration.errors import CheckpointError
from calibration.model.checkpoint_reader import Source
from calibration.model.linears import Layout
from calibration.parameters import SensitivityParams
from calibration.sensitivity.measure_sensitivity import linears, measure, relative_error
from calibration.sensitivity.proposal import Unit, propose
from calibration.sensitivity.sensitivity_page import page
from calibration.statistics.statistics_artifact import Statistics, layer_file
from recipes.formats import FORMATS
from tests.calibration.conftest import llama
from tests.calibration.recorded import record
from tests.jobs import build_sensitivity as build
from tests.pipeline.pages.browser import browser

if TYPE_CHECKING:
    from calibration.sensitivity.sensitivity_values import Sensitivity

NAMES = [name for name in FORMATS if name != "none"]
MODULE = "model.layers.0.mlp.down_proj"
PARAMS = SensitivityParams(formats=tuple(NAMES), smoothing=1.0, device="cpu", tools={})


def quiet(_done: int, _total: int, _unit: str) -> None:
    """Nobody listens."""


class One(nn.Module):
    """One linear."""

    def __init__(self, weight_OI: torch.Tensor) -> None:
        super().__init__()
        self.down_proj = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False, dtype=weight_OI.dtype)
        self.down_proj.weight.data = weight_OI.clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The linear's output."""
        return self.down_proj(x)


def modelopt_error(
    name: str, weight_OI: torch.Tensor, x_NI: torch.Tensor
) -> tuple[float, torch.Tensor | None]:
    """Relative output error of ModelOpt's fake-quantized linear, and AWQ's factors where it searched some."""
    preset = copy.deepcopy(getattr(mtq, FORMATS[name].modelopt_cfg))
    if FORMATS[name].smoothing == "search":
        preset["algorithm"] = {"method": "awq_lite", "alpha_step": 0.1, "debug": True}  # keeps the factors
    made = mtq.quantize(One(weight_OI), preset, forward_loop=lambda model: model(x_NI))
    search = getattr(made.down_proj, "awq_lite", None)
    factors = None if search is None else (1.0 / search.best_scale).float().flatten()
    made = made.float()
    with torch.no_grad():
        return relative_error(One(weight_OI).float()(x_NI.float()), made(x_NI.float())), factors


@pytest.fixture
def linear() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and inputs with outlier channels, in bfloat16."""
    torch.manual_seed(3)
    x_NI = torch.randn(64, 256)
    x_NI[:, ::40] *= 12
    return (torch.randn(96, 256) * 0.05).bfloat16(), x_NI.bfloat16()


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_that_of_modelopts_fake_quantization(
    tmp_path: Path, linear: tuple[torch.Tensor, torch.Tensor], name: str
):
    weight_OI, x_NI = linear
    wanted, factors = modelopt_error(name, weight_OI, x_NI)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "num_hidden_layers": 1, "dtype": "bfloat16"})
    )
    save_file({f"{MODULE}.weight": weight_OI}, tmp_path / "model.safetensors")
    tensors = {
        "input_amax": x_NI.abs().amax(dim=0).float(),
        "input_sample": x_NI,
        "weight_amax": weight_OI.abs().amax(dim=1).float(),
        "weight_in_amax": weight_OI.abs().amax(dim=0).float(),
    }
    if factors is not None:
        tensors["awq_smoothing"] = factors
    (tmp_path / "statistics").mkdir()
    save_file(
        {f"{MODULE}.{field}": tensor for field, tensor in tensors.items()},
        tmp_path / "statistics" / layer_file(0),
    )
    source, statistics = Source.open(tmp_path), Statistics(tmp_path / "statistics")
    (found,) = measure(source, statistics, PARAMS.model_copy(update={"formats": (name,)}), quiet)["linears"]
    assert wanted > 1e-6
    # scales in bfloat16 move single roundings, 2**-9 of a step each
    assert found["errors"][name] == pytest.approx(wanted, rel=0.02)
    assert found["bytes"]["none"] == weight_OI.nbytes
    assert found["bytes"][name] / weight_OI.nbytes == pytest.approx(FORMATS[name].weight_bits / 16, rel=0.15)


def prepared(root: Path, model: LlamaForCausalLM, **how: Any) -> tuple[Path, Path]:
    """A source checkpoint and the statistics of it."""
    model.save_pretrained(root / "source")
    tokens_ST = torch.arange(8 * 48).view(8, 48) * 7 % 384
    return root / "source", record(model, tokens_ST, root / "statistics", batch_size=4, **how)


@pytest.fixture(scope="module")
def bad_layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that computes what it did, but whose second down_proj has one huge weight in every row."""
    model = llama()
    with torch.no_grad():
        mlp = model.model.layers[1].mlp
        mlp.down_proj.weight[:, 0] *= 512
        mlp.up_proj.weight[0] /= 512
    return prepared(tmp_path_factory.mktemp("bad"), model)


@pytest.fixture(scope="module")
def artifact(bad_layer: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The step's output for the model with a bad layer."""
    out, seen = tmp_path_factory.mktemp("sensitivity"), []
    source, statistics = bad_layer
    job = {"inputs": {"source": str(source), "statistics": str(statistics)}, "params": PARAMS}
    build(job, out, lambda done, total, unit: seen.append((done, total, unit)))
    assert seen[-1] == (14, 14, "linears")
    return out


def document(artifact: Path) -> dict[str, Any]:
    """Contents of sensitivity.json."""
    return json.loads((artifact / "sensitivity.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8_wo", "int4_wo"])
def test_a_layer_with_outliers_is_ranked_first_and_proposed(artifact: Path, name: str):
    units = [Unit.of(found) for found in document(artifact)["units"]]
    proposal = propose(units, name, keep=1)
    assert proposal.exceptions == {"model.layers.1.mlp.down_proj": "none"}
    assert max(units, key=lambda unit: unit.errors[name]).label == "model.layers.1.mlp.down_proj"
    assert proposal.gain > 0.5


def test_smoothing_takes_the_outliers_in(artifact: Path):
    bad = next(
        one for one in document(artifact)["linears"] if one["module"] == "model.layers.1.mlp.down_proj"
    )
    assert bad["errors"]["int8_sq"] < bad["errors"]["int8_wo"] / 10


def test_linears_stand_in_the_order_of_computation(artifact: Path):
    kinds = [one["module"].rpartition(".")[2] for one in document(artifact)["linears"]]
    assert kinds == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] * 2


def test_units_sum_their_linears(artifact: Path):
    found = document(artifact)
    for name in NAMES:
        errors: dict[str, Any] = {one["module"]: one["errors"][name] for one in found["linears"]}
        for unit in found["units"]:
            assert unit["errors"][name] == pytest.approx(sum(errors[one] for one in unit["linears"]))


def test_ranges_alone_leave_the_searched_formats_out(tmp_path: Path):
    source, statistics = prepared(tmp_path, llama(num_hidden_layers=1), search=False)
    found = measure(Source.open(source), Statistics(statistics), PARAMS, quiet)
    assert found["left_out"].keys() == {"int4_awq", "w4a8_awq"}
    assert found["formats"] == [name for name in NAMES if not name.endswith("awq")]


@pytest.mark.slow
def test_a_linear_that_blocks_do_not_fit_has_no_error_in_that_format(tmp_path: Path):
    source, statistics = prepared(tmp_path, llama(num_hidden_layers=1, intermediate_size=192))
    job = {"inputs": {"source": str(source), "statistics": str(statistics)}, "params": PARAMS}
    (tmp_path / "out").mkdir()
    build(job, tmp_path / "out", quiet)
    found = document(tmp_path / "out")
    without = {one["module"] for one in found["linears"] if "int4_awq" not in one["errors"]}
    assert without == {MODULE}
    units = [Unit.of(one) for one in found["units"]]
    assert MODULE in propose(units, "int4_awq", keep=0).exceptions
    assert MODULE in page(cast("Sensitivity", found), b"")


def test_statistics_of_another_model_are_refused(tmp_path: Path, bad_layer: tuple[Path, Path]):
    small, _ = prepared(tmp_path, llama(num_hidden_layers=1))
    _, statistics = bad_layer
    with pytest.raises(CheckpointError, match=r"no model.layers.1.mlp.down_proj.weight"):
        measure(
            Source.open(small),
            Statistics(statistics),
            PARAMS.model_copy(update={"formats": ("int8_wo",)}),
            quiet,
        )


def test_linears_come_from_the_statistics(bad_layer: tuple[Path, Path]):
    assert len(linears(Statistics(bad_layer[1]), Layout("llama", 2))) == 14


@pytest.mark.slow
def test_the_same_numbers_make_the_same_files(artifact: Path, bad_layer: tuple[Path, Path], tmp_path: Path):
    source, statistics = bad_layer
    build(
        {"inputs": {"source": str(source), "statistics": str(statistics)}, "params": PARAMS}, tmp_path, quiet
    )
    for name in ("sensitivity.json", "heatmap.png", "page.html"):
        assert (tmp_path / name).read_bytes() == (artifact / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_proposes_what_the_command_proposes(artifact: Path, tmp_path: Path):
    units = [Unit.of(found) for found in document(artifact)["units"]]
    with browser(tmp_path / "profile") as open_page:
        open_page.open((artifact / "page.html").as_uri() + "#int4_wo")
        open_page.text_with("Pastes into the recipe", "default: int4_wo")
        for keep in (0, 1, 3):
            wanted = propose(units, "int4_wo", keep=keep)
            open_page.evaluate(
                f"(e => {{ e.value = {keep}; e.dispatchEvent(new Event('input')) }})"
                "(document.querySelector('#int4_wo input'))"
            )
            open_page.text_with(wanted.summary)
            assert open_page.evaluate("document.querySelector('#int4_wo pre').textContent") == wanted.yaml
            kept = open_page.evaluate("document.querySelectorAll('#int4_wo tr.kept').length")
            assert kept == keep
