"""Medusa's heads in a sharded checkpoint: their tensors beside the model's, one config.json for both; pure.

A head is some residual layers (`linear`, with bias) and its output head. TensorRT-LLM's
`MedusaForCausalLM` adds them to a Llama or Qwen2 model, all column-parallel with gathered outputs
(`models/medusa/model.py` and `config.py`, read in the public sources of 0.15 to 1.x, never executed here):

    source (FasterDecoding/Medusa)     local
    {head}.{layer}.linear.weight       medusa_heads.{head}.medusa_layers.{layer}.linear.weight
    {head}.{layer}.linear.bias         medusa_heads.{head}.medusa_layers.{layer}.linear.bias
    {head}.{layers}.weight             medusa_heads.{head}.lm_head.weight, rows padded as the model's

Heads and layers are counted in the tensors: `medusa_num_heads` of published heads is wrong at times, as that
of medusa-vicuna-7b-v1.3 (`examples/medusa/README.md`). Heads stay in the source dtype.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.checkpoint.rank_place import SOURCE_TYPES, Place
from pipeline.checkpoint.slicing import PADDED, padded_vocab
from pipeline.checkpoint.tensor_parts import Fill, LocalTensor, Piece, Slice
from pipeline.drafting.heads import PREFIX, Kind, differences
from pipeline.errors import SourceError
from pipeline.models.shape import ModelShape

ARCHITECTURE = "MedusaForCausalLM"
BASES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
"""Models that MedusaForCausalLM extends: LLaMAForCausalLM, or where model_type has `qwen` QWenForCausalLM."""

MODULES = "medusa_heads.*"
"""Matches the names of every module of the heads, to be left out of quantization."""


@dataclass(frozen=True, slots=True)
class Medusa:
    """Sizes of the heads, as their tensors have them."""

    num_heads: int
    num_layers: int
    """Residual layers of each head."""
    hidden_size: int
    vocab_size: int
    dtype: str
    """Safetensors name."""


def read(tensors: Mapping[str, Kind]) -> Medusa:
    """Reads the sizes of heads from their tensors; a SourceError unless they are Medusa's."""
    matches = [re.fullmatch(r"(\d+)\.(\d+)(\.linear)?\.weight", name) for name in tensors]
    numbers = [(int(match[1]), int(match[2]), bool(match[3])) for match in matches if match]
    # Counted, not read from config.json: `medusa_num_heads` of published heads can be wrong.
    layers = {layer for _, layer, hidden in numbers if hidden}
    first = f"0.{len(layers)}.weight"
    if not layers or first not in tensors or len(tensors[first][1]) != 2:
        raise SourceError(
            f"the heads hold {', '.join(sorted(tensors)[:3])}; Medusa's are named '0.0.linear.weight', "
            "'0.0.linear.bias', '0.1.weight', ...: give heads in that layout"
        )
    dtype, (vocab, hidden) = tensors[first]
    heads = Medusa(1 + max(head for head, _, _ in numbers), len(layers), hidden, vocab, dtype)
    if mismatches := differences({name: (dtype, size) for name, size in _list_source_shapes(heads)}, tensors):
        raise SourceError(
            f"not {heads.num_heads} heads of {heads.num_layers} layers of {hidden} ({dtype}): "
            f"{', '.join(mismatches)}; fetch the heads again"
        )
    return heads


def reasons(heads: Medusa, shape: ModelShape, max_draft_len: int, tp: int, pp: int) -> Iterator[str]:
    """Yields why the heads do not go with a model and its layout, each with the recipe field to change."""
    if shape.architecture not in BASES:
        yield (
            f"speculative.mode: TensorRT-LLM adds Medusa's heads to no {shape.architecture}; choose a model "
            f"of {', '.join(BASES)}, or another mode"
        )
    pairs = (
        ("hidden size", heads.hidden_size, shape.hidden_size),
        ("vocabulary", heads.vocab_size, shape.vocab_size),
        ("type", heads.dtype, SOURCE_TYPES[shape.dtype]),
    )
    for field, heads_value, model_value in pairs:
        if heads_value != model_value:
            yield (
                f"speculative.draft: the heads' {field} is {heads_value}, the model's {model_value}; "
                "choose heads that were trained for this model, in its type"
            )
    if max_draft_len < heads.num_heads:
        yield (
            f"speculative.max_draft_len: {max_draft_len} tokens leave no path through {heads.num_heads} "
            f"Medusa heads; give at least {heads.num_heads}, usually 63"
        )
    if shape.hidden_size % tp:
        yield f"engine.tp: {tp} does not divide the {shape.hidden_size} outputs of the heads' layers"
    if pp > 1:
        yield (
            f"engine.pp: Medusa's heads read the last stage's output, and TensorRT-LLM supports them with "
            f"tensor parallelism only, found {pp} stages; set engine.pp to 1"
        )


def tensors(heads: Medusa, shape: ModelShape, place: Place) -> list[LocalTensor]:
    """Lists the heads' tensors on one rank; none before the last stage."""
    if place.pp_rank < place.pp - 1:
        return []
    # Outputs are gathered: every rank needs the same number of rows, as in the model's own head.
    padded = padded_vocab(shape, place.tp)
    tensors_out = []
    for source, size in _list_source_shapes(heads):
        head, layer, *rest = source.split(".")
        last = rest == ["weight"]
        local = "lm_head" if last else f"medusa_layers.{layer}.linear"
        name = f"medusa_heads.{head}.{local}.{rest[-1]}"
        tensors_out.append(_plan_rows(name, source, size, (heads.dtype, padded if last else size[0]), place))
    return tensors_out


def config(base: Mapping[str, Any], heads: Medusa, max_draft_len: int, model_type: str) -> dict[str, Any]:
    """Changes a model's config.json into that of the model with the heads.

    Quantization leaves the heads alone: they have no scales.
    """
    block = dict(base["quantization"])
    if "exclude_modules" in block:
        block["exclude_modules"] = [*block["exclude_modules"], MODULES]
    return {
        **base,
        "architecture": ARCHITECTURE,
        "model_type": model_type,
        "num_medusa_heads": heads.num_heads,
        "num_medusa_layers": heads.num_layers,
        "max_draft_len": max_draft_len,
        "quantization": block,
    }


def _list_source_shapes(heads: Medusa) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields name and shape of every tensor of the heads."""
    hidden = heads.hidden_size
    for head in range(heads.num_heads):
        for layer in range(heads.num_layers):
            yield f"{head}.{layer}.linear.weight", (hidden, hidden)
            yield f"{head}.{layer}.linear.bias", (hidden,)
        yield f"{head}.{heads.num_layers}.weight", (heads.vocab_size, hidden)


def _plan_rows(
    name: str, source: str, size: tuple[int, ...], kind: tuple[str, int], place: Place
) -> LocalTensor:
    """Plans a rank's rows of a tensor; `kind` is its type and its rows with padding, which tp divides."""
    dtype, total = kind
    each, width = total // place.tp, size[1:]
    start, stop = (min(size[0], (place.tp_rank + more) * each) for more in (0, 1))
    parts: list[Piece] = []
    if stop > start:
        ranges = ((start, stop), *((0, extent) for extent in width))
        parts.append(Slice(PREFIX + source, dtype, size, ranges))
    if missing := each - (stop - start):
        parts.append(Fill(0, (missing, *width), PADDED))
    return LocalTensor(name, dtype, (each, *width), tuple(parts))
