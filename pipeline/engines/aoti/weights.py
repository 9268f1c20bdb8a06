"""Tensors that compiled code reads: a rank's weights, rotary tables, and its place in the vocabulary."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.engines.aoti import e4m3
from pipeline.engines.aoti.arch import Arch
from pipeline.engines.aoti.quantization import LinearFormat, newest
from pipeline.errors import SourceError
from pipeline.weights.tensors import read_header
from recipes.formats import FORMATS

LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def bind(directory: Path, arch: Arch, rank: int, dtype: torch.dtype, capacity: int) -> dict[str, Tensor]:
    """Returns every tensor of one rank by its name in the stage module.

    Quantized weights stay as they are stored, but for the nibbles of `two_level` formats, which become e4m3;
    16- and 32-bit weights take the compute dtype.
    """
    stored = {newest(name): t for name, t in load_file(directory / f"rank{rank}.safetensors").items()}
    formats = _weight_formats(arch, rank // arch.tp)
    tensors = {name: _prepare(name, stored, dtype, formats.get(name)) for name in stored}
    cos, sin = rotary_tables(arch, capacity)
    tensors |= {"cos": cos, "sin": sin}
    if arch.rope_local_base_freq is not None:
        cos, sin = rotary_tables(local_rotary(arch), capacity)
        tensors |= {"cos_local": cos, "sin_local": sin}
    # Only the first stage looks tokens up.
    if rank < arch.tp:
        tensors["transformer.vocab_embedding.start"] = torch.tensor(rank % arch.tp * arch.rank_vocab)
    if arch.experts is not None and arch.ep > 1:
        # Neighbouring ranks hold different experts; every `ep` of them hold all.
        start = torch.tensor(rank % arch.tp % arch.ep * (arch.experts.count // arch.ep))
        tensors |= {f"transformer.layers.{n}.mlp.start": start.clone() for n in range(arch.stage_layers)}
    return tensors


def _weight_formats(arch: Arch, stage: int) -> dict[str, LinearFormat]:
    """Weight's name in the files of a stage -> its linear's format."""
    return {
        f"transformer.layers.{layer}.{linear}.weight": fmt
        for layer, linears in enumerate(arch.stage_linears(stage))
        for linear, fmt in linears.items()
    }


def _prepare(
    name: str, stored: Mapping[str, Tensor], dtype: torch.dtype, linear: LinearFormat | None
) -> Tensor:
    tensor = stored[name]
    if linear is not None and FORMATS[linear.format].weight == "int4":
        if not FORMATS[linear.format].two_level:
            return flip_nibbles(tensor)
        scales = name.removesuffix("weight") + "weights_scaling_factor"
        return widen(tensor, stored[scales].float(), stored[f"{scales}_2"].float())
    if "scaling_factor" in name or name.endswith("per_channel_scale"):
        # Scales stay float32; a stored scalar takes the shape (1,) that the modules have.
        return tensor.float().reshape(-1) if tensor.dim() == 0 else tensor.float()
    # Routing is computed in float32: a rounded logit can choose another expert.
    if name.endswith("mlp.router.weight"):
        return tensor.float()
    return tensor.to(dtype) if tensor.dtype in (torch.bfloat16, torch.float16, torch.float32) else tensor


def flip_nibbles(packed: Tensor) -> Tensor:
    """Turns two's complement nibbles into value plus 8, in a byte each two: what Int4Block reads."""
    # The sign bit of both nibbles: flipping it adds 8 to what two's complement means.
    return packed.view(torch.uint8) ^ 0x88


def widen(packed: Tensor, block_scale: Tensor, scale: Tensor) -> Tensor:
    """Turns nibbles (O/2, I), scales of blocks (O, G) and one scale into the e4m3 values (O, I) they mean."""
    signed = packed.view(torch.int8)
    ratio = (block_scale / scale).unsqueeze(-1)
    wide = torch.empty((len(block_scale), packed.shape[1]), dtype=torch.float8_e4m3fn)
    # The left shift makes the low nibble's sign the byte's, which the right shift extends.
    for first, nibbles in ((0, (signed << 4) >> 4), (1, signed >> 4)):
        units = torch.unflatten(nibbles.float(), -1, (ratio.shape[1], -1)) * ratio[first::2]
        wide[first::2] = units.flatten(-2).clamp(-e4m3.MAX, e4m3.MAX).to(wide.dtype)
    return wide


def loaded_bytes(directory: Path, arch: Arch, rank: int) -> int:
    """Bytes that a rank's weights take in memory: those of its file, and once more what `widen` widens."""
    formats = _weight_formats(arch, rank // arch.tp)
    header = read_header(directory / f"rank{rank}.safetensors")
    # Two nibbles in a byte become a byte each: once more what the file holds.
    twice = [name for name, fmt in formats.items() if FORMATS[fmt.format].two_level]
    return sum(entry.nbytes for entry in header.values()) + sum(header[name].nbytes for name in twice)


def rotary_tables(arch: Arch, length: int) -> tuple[Tensor, Tensor]:
    """Returns cosine and signed sine of every position and channel: (length, D) each.

    The last position is padding. Raises SourceError where a request would leave the range that `longrope`
    rotates by its short factors: beyond it, every cached key would have to be rotated again.
    """
    angles = torch.arange(length).float().unsqueeze(1) * _frequencies(arch)
    # The last position is padding, which no request reaches.
    cos, sin = (table * _magnitude(arch, length - 1) for table in (angles.cos(), angles.sin()))
    # `Step.rotate` swaps the halves without a sign, which is here.
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def local_rotary(arch: Arch) -> Arch:
    """The same network as its layers with a window rotate: by a base of their own, unscaled."""
    assert arch.rope_local_base_freq is not None
    return replace(arch, rotary_base=arch.rope_local_base_freq, rotary_scaling=None)


def _magnitude(arch: Arch, max_seq_len: int) -> float:
    """Returns what cosine and sine are multiplied by."""
    scaling = arch.rotary_scaling or {}
    if scaling.get("rope_type") != "longrope":
        return 1.0
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    if max_seq_len > original:
        raise SourceError(
            f"max_seq_len {max_seq_len} exceeds {original}, up to which longrope keeps its short factors; "
            f"choose at most {original}"
        )
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def _frequencies(arch: Arch) -> Tensor:
    exponent = torch.arange(0, arch.head_size, 2).float() / arch.head_size
    frequencies: Tensor = 1.0 / arch.rotary_base**exponent
    scaling = arch.rotary_scaling
    kind = "default" if scaling is None else scaling.get("rope_type", scaling.get("type"))
    if scaling is None or kind == "default":
        return frequencies
    if kind == "longrope":
        return frequencies / torch.tensor(scaling["short_factor"])
    if kind == "linear":
        return frequencies / float(scaling["factor"])
    if kind != "llama3":
        raise SourceError(
            f"config.json: rotary_scaling type {kind!r} is not computed; "
            "have default, linear, llama3, longrope"
        )
    return _llama3(frequencies, *(float(scaling[key]) for key in LLAMA3_KEYS))


def _llama3(frequencies: Tensor, factor: float, low: float, high: float, original: float) -> Tensor:
    """Slows down the frequencies whose wavelength exceeds the original context, smoothly."""
    wavelength = 2 * math.pi / frequencies
    # 1 for short wavelengths, which are kept; 0 for long ones, which are stretched by the whole factor.
    blend = ((original / wavelength - low) / (high - low)).clamp(0, 1)
    return frequencies * ((1 - blend) / factor + blend)
