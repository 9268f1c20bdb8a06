"""Runs a quantized checkpoint in plain transformers: the slow, obvious reading of the layout."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from calibration.model.linears import TIED_HEAD, attention


def int4_codes(packed: torch.Tensor) -> torch.Tensor:
    """Signed codes [O, I] of bytes [O/2, I] that hold two output channels each."""
    low, high = (packed & 0x0F).to(torch.int8), (packed >> 4).to(torch.int8)
    codes = torch.stack([low, high], dim=1).flatten(0, 1)
    return torch.where(codes > 7, codes - 16, codes)


def dequantized(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Weight in float32 from codes and their scale per tensor, channel or block."""
    codes = int4_codes(weight) if weight.dtype == torch.uint8 else weight
    if scale.dim() == 2:
        return (codes.float().view(*scale.shape, -1) * scale[:, :, None]).flatten(1)
    return codes.float() * (scale[:, None] if scale.dim() else scale)


def model(checkpoint: Path) -> Any:
    """The model in float32, whose linears round their inputs as the checkpoint's scales say."""
    tensors = load_file(checkpoint / "model.safetensors")
    config = AutoConfig.from_pretrained(checkpoint)
    config.__dict__.pop("quantization_config", None)
    kernel = attention(config.to_dict())
    made = AutoModelForCausalLM.from_config(config, attn_implementation=kernel).float().eval()
    state = {name: tensor for name, tensor in tensors.items() if name in made.state_dict()}
    for name, tensor in state.items():
        scale, second = tensors.get(f"{name}_scale"), tensors.get(f"{name}_scale_2")
        state[name] = tensor.float() if scale is None else dequantized(tensor, scale)
        if second is not None:  # four-bit weights are widened to e4m3 for the product
            state[name] = e4m3(state[name], second)
    absent = made.load_state_dict(state, strict=False)
    made.tie_weights()
    assert not absent.unexpected_keys
    assert absent.missing_keys == ([TIED_HEAD] if config.tie_word_embeddings else [])
    for name, module in made.named_modules():
        if isinstance(module, nn.Linear) and f"{name}.weight" in tensors:
            extras = {
                part: tensors.get(f"{name}.{part}") for part in ("pre_quant_scale", "input_scale", "weight")
            }
            module.register_forward_pre_hook(_rounding(**extras))
    return made


def _rounding(pre_quant_scale, input_scale, weight):
    def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x = args[0] if pre_quant_scale is None else args[0] * pre_quant_scale.float()
        if input_scale is not None and weight.dtype == torch.int8:
            return ((x / input_scale).round().clamp(-128, 127) * input_scale,)
        if input_scale is not None:
            return (e4m3(x, input_scale),)
        if weight.dtype == torch.float8_e4m3fn:  # one scale per token
            return (e4m3(x, x.abs().amax(dim=-1, keepdim=True) / 448),)
        return (x,)

    return hook


def e4m3(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Values after a round trip through e4m3 under a scale."""
    return (values / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def nearest_e4m3(values: torch.Tensor) -> torch.Tensor:
    """Correctly rounded e4m3 values of finite float32 values, ties to the even code, by search in a table."""
    codes = torch.arange(0x7F, dtype=torch.uint8)  # 0x7f is NaN
    table = codes.view(torch.float8_e4m3fn).double()
    magnitude = values.double().abs().clamp(max=448.0)
    above = torch.searchsorted(table, magnitude).clamp(max=len(table) - 1)
    below = (above - 1).clamp(min=0)
    up, down = table[above] - magnitude, magnitude - table[below]
    even_below = below % 2 == 0
    chosen = torch.where((down < up) | ((down == up) & even_below), below, above)
    return torch.where(values < 0, -table[chosen], table[chosen])


def read_json(path: Path) -> Any:
    """Parsed contents of a JSON file."""
    return json.loads(path.read_text())
