"""The linear layers against ModelOpt's own fake quantization, fed with the tensors that its export makes."""

import copy
import warnings
from typing import Any

import pytest
import torch

from pipeline.engines.aoti.blocks import linear_of
from pipeline.engines.aoti.kv_cache import stored, values
from pipeline.engines.aoti.linear import Linear
from pipeline.engines.aoti.quantization import LinearFormat
from pipeline.engines.aoti.weights import flip_nibbles, widen
from recipes.formats import FORMATS

pytestmark = pytest.mark.slow  # importing ModelOpt takes seconds

INPUTS, OUTPUTS = 256, 192


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    outliers = torch.where(torch.arange(INPUTS) % 50 == 0, 20.0, 1.0)
    return torch.randn((1, 32, INPUTS), generator=generator) * outliers


def quantized(fmt: str, x: torch.Tensor):
    """A linear that ModelOpt fake-quantizes, and its tensors by their names in the layout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import modelopt.torch.quantization as mtq
        from modelopt.torch.export import quant_utils

        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(INPUTS, OUTPUTS, bias=False))
        mtq.quantize(model, copy.deepcopy(getattr(mtq, FORMATS[fmt].modelopt_cfg)), lambda m: m(x))
        module: Any = model[0]  # with the quantizers that ModelOpt gave it
        scale = quant_utils.get_weight_scaling_factor(module)
        kind = quant_utils.get_quantization_format(module)
        block = FORMATS[fmt].block_size
        if block:
            scale = scale.view(OUTPUTS, -1)
        packed = quant_utils.to_quantized_weight(
            module.weight.detach(), scale.squeeze(), kind, block_size=block
        )
        found = {
            "weight": packed,
            "per_channel_scale" if fmt == "fp8_rowwise" else "weights_scaling_factor": scale.squeeze(),
            "weights_scaling_factor_2": quant_utils.get_weight_scaling_factor_2(module),
            "activation_scaling_factor": quant_utils.get_activation_scaling_factor(module),
            "prequant_scaling_factor": quant_utils.get_prequant_scaling_factor(module),
        }
        with torch.no_grad():
            return model(x), {name: tensor for name, tensor in found.items() if tensor is not None}


def bound(fmt: str, tensors) -> Linear:
    """The layer of our model with those tensors, as `weights.bind` prepares them."""
    row = FORMATS[fmt]
    with torch.device("meta"):
        layer = linear_of(LinearFormat(fmt, row.block_size))(INPUTS, OUTPUTS, torch.float32)
    if row.two_level:
        scales = tensors["weights_scaling_factor"], tensors["weights_scaling_factor_2"]
        tensors = tensors | {"weight": widen(tensors["weight"], *scales)}
    elif row.weight == "int4":
        tensors = tensors | {"weight": flip_nibbles(tensors["weight"])}
    state = {name: tensors[name].reshape(wanted.shape) for name, wanted in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)
    return layer


@pytest.mark.parametrize("fmt", [name for name in FORMATS if name != "none"])
def test_both_ways_of_a_layer_give_what_modelopt_computes(fmt: str, x: torch.Tensor):
    expected, tensors = quantized(fmt, x)
    layer = bound(fmt, tensors)
    with torch.no_grad():
        many = layer(x, single=False)
        single = torch.stack([layer(token.view(1, 1, -1), single=True)[0, 0] for token in x[0]]).unsqueeze(0)
    for found in (many, single):
        error = (found - expected).abs() / expected.std()
        # ModelOpt multiplies by 448/amax where we divide by amax/448: an input on an edge may go the other way.
        assert error.median() < 1e-5
        assert error.max() < 5e-2


@pytest.mark.parametrize(("bits", "dtype"), [((4, 3), torch.float8_e4m3fn), (8, torch.int8)])
def test_the_cache_keeps_what_modelopts_quantizer_keeps(bits, dtype: torch.dtype, x: torch.Tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelopt.torch.export.quant_utils import get_scaling_factor
        from modelopt.torch.quantization.config import QuantizerAttributeConfig
        from modelopt.torch.quantization.nn import TensorQuantizer

        quantizer = TensorQuantizer(
            QuantizerAttributeConfig(num_bits=bits, axis=None), amax=torch.tensor(40.0)
        )
        expected, scale = quantizer(x), get_scaling_factor(quantizer)
    found = values(stored(x, scale.view(1), dtype), scale.view(1), torch.float32)
    assert (x.abs() > 40).any()  # beyond the range is clamped in both
    error = (found - expected).abs()
    assert error.median() < 1e-5
    assert (error > 1e-3).float().mean() < 1e-3


def test_a_token_of_zeros_has_a_scale(x: torch.Tensor):
    layer = linear_of(LinearFormat("fp8_rowwise"))(INPUTS, OUTPUTS, torch.float32)
    weight = torch.ones((OUTPUTS, INPUTS)).to(torch.float8_e4m3fn)
    layer.load_state_dict({"weight": weight, "per_channel_scale": torch.ones(OUTPUTS)}, assign=True)
    for single in (True, False):
        assert layer(torch.zeros((1, 1, INPUTS)), single=single).eq(0).all()
