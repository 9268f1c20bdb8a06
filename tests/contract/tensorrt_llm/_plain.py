"""The plain model that computes for both backends: the repository's own stages, run eagerly in float32."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file

from pipeline.checkpoint.convert import build as convert
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.child.kinds import maker
from pipeline.engines.aoti.arch import read_arch
from pipeline.engines.aoti.decoder import Stage
from pipeline.engines.aoti.sizes import new_caches
from pipeline.engines.aoti.weights import bind

KV_CACHES = {None: "auto", "FP8": "fp8", "INT8": "int8"}
FORMATS = {
    None: "none", "FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8_rowwise", "W4A16_AWQ": "int4_awq",
    "W4A8_AWQ": "w4a8_awq",
}  # fmt: skip


class Plain:
    """A model of any number of pipeline stages and one tensor-parallel rank."""

    def __init__(self, directory: Path, capacity: int) -> None:
        torch.set_num_threads(1)
        self.arch, self.capacity = read_arch(directory), capacity
        self.stages = [self._stage(directory, number) for number in range(self.arch.pp)]

    def _stage(self, directory: Path, number: int) -> Stage:
        stage = Stage(self.arch, torch.float32, number, self.capacity, single=False)
        tensors = bind(directory, self.arch, number, torch.float32, self.capacity)
        stage.load_state_dict({name: tensors[name] for name in stage.state_dict()}, assign=True)
        return stage

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        """Logits (T, V) after each token."""
        count = torch.arange(len(tokens))
        x = torch.tensor([tokens])
        for stage in self.stages:
            caches = new_caches(self.arch, torch.float32, 1, self.capacity)
            x = stage(x, count.unsqueeze(0), count, count, caches)
        return x


def of_engine(directory: Path, config: dict[str, Any], capacity: int) -> Plain:
    """The model in the engine files of a directory: rank files behind a line of JSON."""
    pretrained = config["pretrained_config"]
    mapping = pretrained["mapping"]
    tp, pp = mapping["tp_size"], mapping["pp_size"]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        single = {**mapping, "tp_size": 1, "world_size": pp}
        (place / "config.json").write_text(json.dumps({**pretrained, "mapping": single}))
        mixed = directory / "quant_cfg.json"
        if mixed.is_file():
            (place / "quant_cfg.json").write_bytes(mixed.read_bytes())
        for stage in range(pp):
            files = [directory / f"rank{stage * tp + rank}.engine" for rank in range(tp)]
            ranks = [load(file.read_bytes().split(b"\n", 1)[1]) for file in files]
            save_file(joined(ranks, pretrained), place / f"rank{stage}.safetensors")
        return Plain(place, capacity)


def of_checkpoint(directory: Path, capacity: int) -> Plain:
    """The model of a quantized checkpoint, converted as for one rank."""
    quantization = {}
    if (directory / "hf_quant_config.json").is_file():
        quantization = json.loads((directory / "hf_quant_config.json").read_text())["quantization"]
    params = {
        "tp": 1,
        "pp": 1,
        "ep": 1,
        "layout_version": LAYOUT_VERSION,
        "format": FORMATS[quantization.get("quant_algo")],
        "kv_cache": KV_CACHES[quantization.get("kv_cache_quant_algo")],
    }
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        kind = "sharded_checkpoint"
        inputs = {"checkpoint": str(directory)}
        job = {"kind": kind, "params": params, "places": {}, "inputs": inputs, "out": str(out)}
        convert(maker(kind).job.read(job), lambda *_: None)
        return Plain(out, capacity)


def joined(ranks: list[dict[str, torch.Tensor]], config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of one rank that hold what those of several tensor-parallel ranks hold."""
    if len(ranks) == 1:
        return ranks[0]
    return {name: _join(name, [rank[name] for rank in ranks], config) for name in ranks[0]}


def _join(name: str, parts: list[torch.Tensor], config: dict[str, Any]) -> torch.Tensor:
    linear, tensor = name.rsplit(".", 1)
    if linear.endswith(("vocab_embedding", "lm_head")):
        return torch.cat(parts)[: config["vocab_size"]].contiguous()
    repeated = "layernorm" in name or linear.endswith("ln_f") or tensor == "kv_cache_scaling_factor"
    if repeated or parts[0].numel() == 1:
        return parts[0]
    smoothing, row = tensor == "prequant_scaling_factor", linear.endswith(("dense", "proj"))
    if row and not smoothing:
        return parts[0] if parts[0].dim() == 1 else torch.cat(parts, 1)
    if smoothing:
        return torch.cat(parts) if row else parts[0]
    return _join_qkv(parts, config) if linear.endswith("qkv") else torch.cat(parts)


def _join_qkv(parts: list[torch.Tensor], config: dict[str, Any]) -> torch.Tensor:
    """Queries, keys and values of all ranks; heads that several ranks hold count once."""
    tp, heads = len(parts), config["num_attention_heads"]
    kv_heads = config["num_key_value_heads"]
    each = max(1, kv_heads // tp)
    unit = len(parts[0]) // (heads // tp + 2 * each)
    cut = [part.split([heads // tp * unit, each * unit, each * unit]) for part in parts]
    query, key, value = zip(*cut, strict=True)
    step = max(1, tp // kv_heads)
    return torch.cat([*query, *key[::step], *value[::step]])


__all__ = ["Plain", "joined", "of_checkpoint", "of_engine"]
