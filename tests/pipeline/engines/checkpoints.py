"""Tiny checkpoints in every format, and an eager model that computes what an engine of the format should."""

import json
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 its usual name
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from pipeline.checkpoint.convert import build as convert
from recipes.formats import FORMATS

ROPE = {
    "rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
SIZES = {
    "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 251, "max_position_embeddings": 64,
}  # fmt: skip
CONFIGS = {
    "llama": lambda **more: LlamaConfig(**{**SIZES, "rope_parameters": ROPE, **more}),
    "qwen2": lambda **more: Qwen2Config(**{**SIZES, **more}),
    "qwen3": lambda **more: Qwen3Config(**{**SIZES, **more}),
}
ACT_AMAX = 6.0
"""Calibrated range that the tests pretend; inputs beyond it are clamped, as in life."""

BLOCK = 128


def source(directory: Path, family: str = "llama", dtype: torch.dtype = torch.float32, **sizes: int) -> Path:
    """Writes a random model whose logits vary; returns its directory."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family](**sizes), dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
            elif name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.mul_(3)
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text("{}")
    return directory


def quantize(directory: Path, fmt: str, out: Path) -> Path:
    """Writes the model in `directory` as a quantized checkpoint, rounding each weight once."""
    out.mkdir()
    config = json.loads((directory / "config.json").read_text())
    if algo := FORMATS[fmt].quant_algo:
        config["quantization_config"] = {"quant_algo": algo}
    tensors = load_file(directory / "model.safetensors")
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        tensors |= _quantized(name.removesuffix(".weight"), tensors.pop(name), fmt)
    save_file(tensors, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(config))
    (out / "tokenizer.json").write_text("{}")
    return out


def _quantized(name: str, weight: Tensor, fmt: str) -> dict[str, Tensor]:
    smooth = torch.linspace(0.5, 2.0, weight.shape[1])
    wide = weight.float()
    found: dict[str, Tensor] = {}
    match fmt:
        case "fp8":
            scale = torch.tensor(0.01)  # q, k and v share it
            found = {"weight": (wide / scale).clamp(-448, 448).to(torch.float8_e4m3fn), "weight_scale": scale,
                     "input_scale": torch.tensor(ACT_AMAX / 448)}  # fmt: skip
        case "int8_sq":
            scale = (wide / smooth).abs().amax(1) / 127
            found = {"weight": (wide / smooth / scale[:, None]).round().to(torch.int8), "weight_scale": scale,
                     "input_scale": torch.tensor(ACT_AMAX / 127), "pre_quant_scale": smooth.to(weight.dtype)}  # fmt: skip
        case "int8_wo":
            scale = wide.abs().amax(1) / 127
            found = {"weight": (wide / scale[:, None]).round().to(torch.int8), "weight_scale": scale}
        case "int4_awq":
            row = name.endswith(("o_proj", "down_proj"))
            smoothed = wide / smooth if row else wide
            scale = smoothed.unflatten(1, (-1, BLOCK)).abs().amax(2) / 7
            whole = (smoothed / scale.repeat_interleave(BLOCK, 1)).round().clamp(-8, 7).to(torch.int8)
            packed = (whole[0::2] & 15) | (whole[1::2] << 4)
            found = {"weight": packed.view(torch.uint8), "weight_scale": scale}
            if row:
                found["pre_quant_scale"] = smooth.to(weight.dtype)
        case "none":
            found = {"weight": weight}
    return {f"{name}.{kind}": tensor.contiguous() for kind, tensor in found.items()}


def shard(checkpoint: Path, fmt: str, tp: int, pp: int, out: Path) -> Path:
    """Writes the sharded checkpoint."""
    out.mkdir()
    params = {"tp": tp, "pp": pp, "format": fmt, "layout_version": 1}
    convert({"params": params, "places": {}, "inputs": {"checkpoint": str(checkpoint)}}, out, lambda *_: None)
    return out


class Emulated(nn.Module):
    """A linear layer that dequantizes its weight and really rounds its input."""

    def __init__(self, tensors: dict[str, Tensor], bias: Tensor | None, fmt: str) -> None:
        super().__init__()
        self.tensors, self.bias, self.fmt = tensors, bias, fmt

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer."""
        t = self.tensors
        weight = t["weight"]
        if "pre_quant_scale" in t:
            x = x * t["pre_quant_scale"]
        if self.fmt == "fp8":
            x = (x / t["input_scale"]).clamp(-448, 448).to(torch.float8_e4m3fn).float() * t["input_scale"]
            return F.linear(x, weight.float() * t["weight_scale"], self.bias)
        if self.fmt == "int8_sq":
            x = (x / t["input_scale"]).round().clamp(-128, 127) * t["input_scale"]
        if self.fmt == "int4_awq":
            signed = weight.view(torch.int8)
            low, high = (signed << 4) >> 4, signed >> 4
            whole = torch.stack([low, high], 1).flatten(0, 1).float()
            return F.linear(x, whole * t["weight_scale"].repeat_interleave(BLOCK, 1), self.bias)
        return F.linear(x, weight.float() * t["weight_scale"][:, None], self.bias)


def reference(directory: Path, checkpoint: Path, fmt: str) -> nn.Module:
    """Returns the transformers model in float32 with every quantized linear emulated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tensors = load_file(checkpoint / "model.safetensors")
    for name, module in [*model.named_modules()] if fmt != "none" else []:
        if isinstance(module, nn.Linear) and name != "lm_head":
            own = {
                key.removeprefix(f"{name}."): tensors[key] for key in tensors if key.startswith(f"{name}.")
            }
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, Emulated(own, module.bias, fmt))
    return model
