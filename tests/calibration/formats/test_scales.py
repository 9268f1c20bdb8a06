"""Properties of quantized weights, whatever the weights are; and the same bits on every device."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import CheckpointError
from calibration.formats import scales
from calibration.formats.scales import Measured, agreed, quantized
from calibration.model.linears import Group
from recipes.formats import FORMATS, Format
from tests.calibration import reference

QUANTIZING = [fmt for fmt in FORMATS.values() if fmt.weight != "source"]
LEVELS = {"float8_e4m3fn": 448.0, "int8": 127.0, "int4": 7.0}
STEP = {"float8_e4m3fn": 16.0, "int8": 0.5, "int4": 0.5}
"""Largest rounding error in units of the scale; e4m3's coarsest step is 32."""


def weights(seed, spread, num_out: int = 6, num_in: int = 256) -> torch.Tensor:
    """Bfloat16 weights of very different magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(num_out, num_in, generator=generator)
    return (values * torch.exp(spread * torch.randn(num_in, generator=generator))).to(torch.bfloat16)


def measured(weight: torch.Tensor, fmt: Format) -> Measured:
    """What would be found for a linear whose inputs are all one."""
    factors = torch.linspace(0.5, 2.0, weight.shape[1]) if fmt.smoothed else None
    found = Measured(
        fmt=fmt,
        weight_amax=weight.abs().max() if fmt.granularity == "tensor" else None,
        weight_in_amax=weight.abs().amax(dim=0) if fmt.two_level else None,
        input_amax=torch.tensor(1.0) if fmt.input_scale == "static" else None,
        smoothing=factors,
        shared=None if factors is None else factors.to(weight.dtype),
    )
    return agreed({"linear": found}, ())["linear"]


@pytest.mark.parametrize("fmt", QUANTIZING, ids=lambda fmt: fmt.name)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1 << 30), spread=st.floats(0, 3))
def test_every_weight_comes_back_within_half_a_step(fmt: Format, seed, spread):
    weight = weights(seed, spread)
    found = measured(weight, fmt)
    made = quantized(weight, found)
    source = (
        weight.float()
        if found.smoothing is None
        else (weight * (1 / found.smoothing)).to(weight.dtype).float()
    )
    back = reference.dequantized(made["weight"], made["weight_scale"])
    scale = made["weight_scale"]
    if scale.dim() == 2:
        scale = scale.repeat_interleave(fmt.block_size, dim=1)
    elif scale.dim() == 1:
        scale = scale[:, None]
    assert ((back - source).abs() <= scale * STEP[fmt.weight] * (1 + 1e-5)).all()
    assert (source.abs() <= scale * LEVELS[fmt.weight] * (1 + 1e-5)).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1 << 30), spread=st.floats(0, 3))
def test_fp8_codes_are_the_nearest_there_are(seed, spread):
    weight = weights(seed, spread)
    for name in ("fp8", "fp8_rowwise"):
        made = quantized(weight, measured(weight, FORMATS[name]))
        scale = made["weight_scale"]
        expected = reference.nearest_e4m3(weight.float() / (scale[:, None] if scale.dim() else scale))
        assert torch.equal(made["weight"].double(), expected)


def test_the_second_scale_of_four_bit_weights_covers_the_whole_group():
    fmt, factors = FORMATS["w4a8_awq"], torch.linspace(0.5, 2.0, 256)
    parts = {name: weights(seed, 1.0) for seed, name in enumerate(("gate", "up"))}
    found = {
        name: Measured(
            fmt=fmt,
            weight_in_amax=weight.abs().amax(dim=0),
            input_amax=torch.tensor(1.0),
            smoothing=factors,
            shared=factors.to(weight.dtype),
        )
        for name, weight in parts.items()
    }
    joined = agreed(found, [Group(("gate", "up"), "norm")])
    largest = max((weight * (1 / factors)).to(weight.dtype).abs().max() for weight in parts.values())
    for name, weight in parts.items():
        made = quantized(weight, joined[name])
        assert made["weight_scale_2"] == largest.float() / 448
        assert "pre_quant_scale" not in made  # the norm carries it


@pytest.mark.parametrize("fmt", QUANTIZING, ids=lambda fmt: fmt.name)
def test_pieces_make_the_same_bits_as_the_whole(fmt: Format, monkeypatch: pytest.MonkeyPatch):
    weight = weights(1, 1.0, num_out=64)
    found = measured(weight, fmt)
    pieces = quantized(weight, found)
    monkeypatch.setattr(scales, "ELEMENTS_AT_ONCE", {"cpu": 1})
    assert same(quantized(weight, found), pieces)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to compare with")
@pytest.mark.parametrize("fmt", QUANTIZING, ids=lambda fmt: fmt.name)
def test_a_gpu_makes_the_same_bits(fmt: Format):
    weight, device = weights(2, 2.0, num_out=512, num_in=4096), torch.device("cuda")
    found = measured(weight, fmt)
    assert same(quantized(weight.to(device), found.to(device)), quantized(weight, found))


def same(made: dict[str, Any], others):
    return made.keys() == others.keys() and all(
        torch.equal(made[name].cpu().view(torch.uint8), others[name].view(torch.uint8))
        for name in made
        if made[name].dim()
    )


def test_a_weight_that_was_not_the_one_measured_is_refused():
    weight = weights(3, 1.0)
    found = replace(measured(weight, FORMATS["fp8"]), channels=(6, 128))
    with pytest.raises(CheckpointError, match=r"of \(6, 128\) channels, this one has \(6, 256\)"):
        quantized(weight, found)
