"""Sharded checkpoints in every format, straight from a source, and a plain model that reads their tensors.

Names, shapes and factors are those of ModelOpt 0.47's `export_tensorrt_llm_checkpoint`; each weight is
rounded once, from float32. The model here multiplies what it dequantizes, one operation after another.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 its usual name
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from recipes.formats import Format
from recipes.precision import Precision
from tests.present import present

ACT_AMAX = 6.0
"""Calibrated range that the tests pretend; inputs beyond it are clamped, as in life."""

KV_AMAX = 4.0

BLOCK = 128

PARTS = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.dense": ("self_attn.o_proj",),
    "mlp.fc": ("mlp.gate_proj",),
    "mlp.gate": ("mlp.up_proj",),
    "mlp.proj": ("mlp.down_proj",),
}
ROW_PARALLEL = ("attention.dense", "mlp.proj")
NORMS = {
    "input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm",
    "attention.q_layernorm": "self_attn.q_norm", "attention.k_layernorm": "self_attn.k_norm",
}  # fmt: skip
MIXED = {
    "default": "fp8",
    "except": {
        "model.layers.0.mlp.down_proj": "none",
        "model.layers.0.mlp.*": "w4a8_awq",
        "model.layers.1.self_attn.o_proj": "int4_wo",
        "model.layers.1.mlp.*": "int8_sq",
    },
}
"""One format after the other within a layer, and others in the next."""

KV_LIMITS = {"fp8": 448, "int8": 127}


@dataclass(frozen=True)
class Toy:
    """A source model, its format, and every quantized tensor of it before it is cut."""

    source: Path
    precision: Precision
    kv_cache: str = "auto"

    @property
    def config(self) -> dict[str, Any]:
        """The source's config.json."""
        return json.loads((self.source / "config.json").read_text())

    def layer(self, number: int) -> dict[str, dict[str, Tensor]]:
        """Linear -> its tensors by their names in the layout, whole."""
        tensors = load_file(self.source / "model.safetensors")
        found = {}
        for linear, parts in PARTS.items():
            names = [f"model.layers.{number}.{part}" for part in parts]
            weight = torch.cat([tensors[f"{name}.weight"] for name in names])
            found[linear] = quantized(weight, self.precision.of(names[0]))
            if f"{names[0]}.bias" in tensors:
                found[linear]["bias"] = torch.cat([tensors[f"{name}.bias"] for name in names])
        return found

    def kv_scale(self, number: int) -> Tensor:
        """The layer's scale, another in each."""
        return torch.tensor([KV_AMAX * (1 + number / 8) / KV_LIMITS[self.kv_cache]])

    def write(self, out: Path, tp: int = 1, pp: int = 1) -> Path:
        """Writes the sharded checkpoint."""
        (out / "tokenizer").mkdir(parents=True)
        (out / "tokenizer" / "tokenizer.json").write_text("{}")
        for rank in range(tp * pp):
            save_file(self._rank(rank, tp, pp), out / f"rank{rank}.safetensors")
        (out / "config.json").write_text(json.dumps(self._engine_config(tp, pp)))
        if not self.precision.uniform:
            (out / "quant_cfg.json").write_text(json.dumps(self._quant_cfg()))
        return out

    def _rank(self, rank: int, tp: int, pp: int) -> dict[str, Tensor]:
        tensors, config = load_file(self.source / "model.safetensors"), self.config
        each, stage, place = config["num_hidden_layers"] // pp, rank // tp, rank % tp
        table = tensors["model.embed_tokens.weight"]
        rows = -(-len(table) // tp)
        made = {}
        if stage == 0:
            made["transformer.vocab_embedding.weight"] = padded(table, rows * tp).chunk(tp)[place]
        for local in range(each):
            made |= self._layer(local, stage * each + local, tp, place, tensors)
        if stage == pp - 1:
            head = tensors.get("lm_head.weight", table)
            made["lm_head.weight"] = padded(head, rows * tp).chunk(tp)[place]
            made["transformer.ln_f.weight"] = tensors["model.norm.weight"]
        return {name: tensor.clone().contiguous() for name, tensor in made.items()}

    def _layer(
        self, local: int, number: int, tp: int, place: int, tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        here, there = f"transformer.layers.{local}", f"model.layers.{number}"
        made = {
            f"{here}.{name}.weight": tensors[f"{there}.{source}.weight"]
            for name, source in NORMS.items()
            if f"{there}.{source}.weight" in tensors
        }
        for linear, whole in self.layer(number).items():
            sizes = [len(tensors[f"{there}.{part}.weight"]) for part in PARTS[linear]]
            for kind, tensor in whole.items():
                made[f"{here}.{linear}.{kind}"] = cut(tensor, kind, linear, sizes, (tp, place))
        if self.kv_cache != "auto":
            made[f"{here}.attention.kv_cache_scaling_factor"] = self.kv_scale(number)
        return made

    def _engine_config(self, tp: int, pp: int) -> dict[str, Any]:
        config = self.config
        rope = config.get("rope_parameters", {})
        same = (
            "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size",
            "intermediate_size", "vocab_size",
        )  # fmt: skip
        algorithm = {"auto": None, "fp8": "FP8", "int8": "INT8"}[self.kv_cache]
        block = (
            {"quant_algo": "MIXED_PRECISION"}
            if not self.precision.uniform
            else described(self.precision.default)
        )
        return {
            **{name: config[name] for name in same},
            "head_size": config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            "norm_epsilon": config["rms_norm_eps"],
            "rotary_base": rope["rope_theta"],
            "rotary_scaling": None if rope.get("rope_type", "default") == "default" else rope,
            "qk_layernorm": config["model_type"] == "qwen3",
            "attn_bias": config["model_type"] == "qwen2",
            "dtype": config.get("dtype") or config["torch_dtype"],
            "mapping": {"world_size": tp * pp, "tp_size": tp, "pp_size": pp},
            "quantization": {**block, "kv_cache_quant_algo": algorithm},
        }

    def _quant_cfg(self) -> dict[str, Any]:
        found = {}
        for number in range(self.config["num_hidden_layers"]):
            for linear, parts in PARTS.items():
                fmt = self.precision.of(f"model.layers.{number}.{parts[0]}")
                if fmt.quant_algo:
                    found[f"transformer.layers.{number}.{linear}"] = described(fmt)
        return {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None, "quantized_layers": found}

    def reference(self) -> nn.Module:
        """Returns the transformers model in float32 with every linear emulated; call `logits` with it."""
        model = AutoModelForCausalLM.from_pretrained(self.source, dtype=torch.float32).eval()
        for number, layer in enumerate(model.model.layers):
            for linear, whole in self.layer(number).items():
                first = 0
                for part in PARTS[linear]:
                    rows = slice(first, first + layer.get_submodule(part).weight.shape[0])
                    fmt = self.precision.of(f"model.layers.{number}.{part}")
                    layer.set_submodule(part, Emulated(whole, rows, fmt))
                    first = rows.stop
        return model

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, V) of tokens (B, T), as an engine of the checkpoint should give them."""
        model = self.reference()
        return model(tokens, past_key_values=RoundedCache(self, model.config)).logits


class RoundedCache(DynamicCache):
    """Keeps keys and values as the engine's cache does."""

    def __init__(self, toy: Toy, config) -> None:
        super().__init__(config=config)
        self.toy = toy

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        """Rounds what is kept."""
        if self.toy.kv_cache != "auto":
            scale = self.toy.kv_scale(layer_idx)
            key_states, value_states = (
                eight(x, scale, self.toy.kv_cache) for x in (key_states, value_states)
            )
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


def eight(x: Tensor, scale: Tensor, kind: str) -> Tensor:
    """Rounds to eight bits and back."""
    if kind == "fp8":
        return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    return (x / scale).round().clamp(-128, 127) * scale


def described(fmt: Format) -> dict[str, Any]:
    """The layout's words for one format; int4 blocks have one name, smoothed or not."""
    block: dict[str, Any] = {"quant_algo": "W4A16_AWQ" if fmt.name == "int4_wo" else fmt.quant_algo or None}
    if fmt.block_size:
        block |= {"group_size": BLOCK, "has_zero_point": False, "pre_quant_scale": fmt.smoothed}
    return block


def quantized(weight: Tensor, fmt: Format) -> dict[str, Tensor]:
    """Tensors of one linear (O, I), by their names in the layout."""
    if fmt.name == "none":
        return {"weight": weight}
    wide, found = weight.float(), {}
    if fmt.smoothed:
        smooth = torch.linspace(0.5, 2.0, weight.shape[1]).to(weight.dtype)
        wide, found["prequant_scaling_factor"] = wide / smooth.float(), smooth
    if fmt.input_scale == "static":
        largest = 127 if fmt.activation == "int8" else 448
        found["activation_scaling_factor"] = torch.tensor([ACT_AMAX / largest])
    return found | STORED[fmt.weight, fmt.granularity](wide, fmt)


def _float8(wide: Tensor, fmt: Format) -> dict[str, Tensor]:
    scale = wide.abs().amax() / 448
    return {"weight": (wide / scale).to(torch.float8_e4m3fn), "weights_scaling_factor": scale.view(1)}


def _float8_rows(wide: Tensor, fmt: Format) -> dict[str, Tensor]:
    scale = wide.abs().amax(1) / 448
    return {"weight": (wide / scale[:, None]).to(torch.float8_e4m3fn), "per_channel_scale": scale}


def _int8(wide: Tensor, fmt: Format) -> dict[str, Tensor]:
    scale = wide.abs().amax(1) / 127
    return {"weight": (wide / scale[:, None]).round().to(torch.int8), "weights_scaling_factor": scale}


def _int4(wide: Tensor, fmt: Format) -> dict[str, Tensor]:
    scale = wide.unflatten(1, (-1, BLOCK)).abs().amax(2) / 7
    whole = (wide / scale.repeat_interleave(BLOCK, 1)).round().clamp(-8, 7).to(torch.int8)
    found = {"weight": (whole[0::2] & 15) | (whole[1::2] << 4), "weights_scaling_factor": scale}
    second = {"weights_scaling_factor_2": (wide.abs().amax() / 448).view(1)}
    return found | (second if fmt.two_level else {})


STORED = {
    ("float8_e4m3fn", "tensor"): _float8,
    ("float8_e4m3fn", "channel"): _float8_rows,
    ("int8", "channel"): _int8,
    ("int4", "block"): _int4,
}


def padded(table: Tensor, rows: int) -> Tensor:
    """Adds zero rows."""
    return F.pad(table, (0, 0, 0, rows - len(table)))


def cut(tensor: Tensor, kind: str, linear: str, sizes: list[int], place: tuple[int, int]) -> Tensor:
    """What one tensor-parallel rank holds of a linear's tensor; `sizes` are the outputs of its parts."""
    tp, rank = place
    if tensor.numel() == 1 or kind == "activation_scaling_factor":
        return tensor
    if linear in ROW_PARALLEL:
        along_inputs = kind == "prequant_scaling_factor" or tensor.dim() == 2
        return tensor.chunk(tp, -1)[rank] if along_inputs else tensor
    if kind == "prequant_scaling_factor":
        return tensor
    packed = sum(sizes) // len(tensor)
    parts = tensor.split([size // packed for size in sizes])
    return torch.cat([part.chunk(tp)[rank] for part in parts])


class Emulated(nn.Module):
    """Some output channels of a linear layer: dequantizes its weight and really rounds its input."""

    def __init__(self, whole: Mapping[str, Tensor], rows: slice, fmt: Format) -> None:
        super().__init__()
        self.fmt = fmt
        self.tensors = {
            name: tensor if tensor.dtype == torch.int8 else tensor.float() for name, tensor in whole.items()
        }
        self.weight = self._dequantized()[rows]
        self.bias = whole["bias"][rows] if "bias" in whole else None

    def _dequantized(self) -> Tensor:
        weight, scale = self.tensors["weight"], self.tensors.get("weights_scaling_factor")
        if self.fmt.weight == "int4":
            whole = torch.stack([(weight << 4) >> 4, weight >> 4], 1).flatten(0, 1).float()
            if not self.fmt.two_level:
                return whole * present(scale).repeat_interleave(BLOCK, 1)
            second = self.tensors["weights_scaling_factor_2"]
            ratio = (present(scale) / second).repeat_interleave(BLOCK, 1)
            return (whole * ratio).to(torch.float8_e4m3fn).float() * second
        scale = self.tensors.get("per_channel_scale", scale)
        return weight.float() if scale is None else weight.float() * scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer."""
        if self.fmt.smoothed:
            x = x * self.tensors["prequant_scaling_factor"]
        if self.fmt.activation != "source":
            dynamic = self.fmt.input_scale == "dynamic"
            scale = (
                x.abs().amax(-1, keepdim=True) / 448 if dynamic else self.tensors["activation_scaling_factor"]
            )
            x = eight(x, scale, "int8" if self.fmt.activation == "int8" else "fp8")
        return F.linear(x, self.weight, self.bias)
