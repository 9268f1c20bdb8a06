"""EAGLE-1's net in a sharded checkpoint: its tensors beside the model's, and the config.json for both; pure.

The net is `fc`, which joins a token's embedding and the model's hidden state, and one decoder layer without
its first norm. TensorRT-LLM's `EagleForCausalLM` extends Llama with one copy for every level of the tree of
proposals (`models/eagle/model.py`, `config.py` and `examples/eagle/convert_checkpoint.py`, read in the public
sources of 0.15 to 1.x, never executed here):

    source (SafeAILab/EAGLE)           local, below eagle_nets.{level}
    fc.weight [h, 2 h], fc.bias        drafter.fc.weight, drafter.fc.bias, column-parallel; zeros without bias
    embed_tokens.weight                drafter.vocab_embedding.weight, cut as the model's
    layers.0.*                         drafter.layers.0.*, cut as a layer of the model
    the model's lm_head.weight         lm_head.weight, cut as the model's

The loader wants every copy in the file. All nets rotate by the model's table of angles, and their keys and
values lie in the model's pool, behind its layers: rotation, head size and key heads must be the model's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.checkpoint.families import family
from pipeline.checkpoint.layout_checks import reasons as layout_reasons
from pipeline.checkpoint.modules import Linear, Module, Norm, Part
from pipeline.checkpoint.rank_layout import engine_config
from pipeline.checkpoint.rank_place import SOURCE_TYPES, Place
from pipeline.checkpoint.slicing import module_tensors, table
from pipeline.checkpoint.tensor_parts import Fill, LocalTensor, Slice
from pipeline.drafting import eagle
from pipeline.drafting.heads import PREFIX, Kind, differences
from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from recipes.precision import Precision

ARCHITECTURE = "EagleForCausalLM"
BASES = ("LlamaForCausalLM",)
"""Models that EagleForCausalLM extends."""

MODULES = "eagle_nets.*"
"""Matches the names of every module of the nets, to be left out of quantization."""

PLAIN = Precision.parse("none")
COPY = "every level of the tree of proposals has its own copy"
NO_BIAS = "the net has no fc.bias, TensorRT-LLM's has one"
FIRST_NORM = "input_layernorm"


@dataclass(frozen=True, slots=True)
class Eagle:
    """The net, as its config.json and tensors have it."""

    shape: ModelShape
    """Of a model with the net's layer."""
    dtype: str
    """Safetensors name."""
    bias: bool
    """`fc` has one."""


def read(config: Mapping[str, Any], tensors: Mapping[str, Kind], place: str = "") -> Eagle:
    """Reads the net; a SourceError unless it is that of EAGLE-1 for a Llama, with all its tensors.

    `place` is the directory that messages name before `config.json`.
    """
    architectures = config.get("architectures") or []
    if eagle.generation(tensors) == 3:
        raise SourceError(
            "the net is of EAGLE-3, which reads several layers of the model; TensorRT-LLM builds EAGLE-1's "
            "into engines: choose such a net, or engine.backend trtllm_torch"
        )
    if architectures != list(BASES):
        raise SourceError(
            f"config.json: architectures {architectures!r}; an EAGLE-1 net says {list(BASES)!r}"
        )
    shape = read_shape(config, place)
    dtype = tensors["fc.weight"][0] if "fc.weight" in tensors else ""
    net = Eagle(shape, dtype, "fc.bias" in tensors)
    if mismatches := differences({name: (dtype, size) for name, size in _list_source_shapes(net)}, tensors):
        raise SourceError(
            f"not an EAGLE-1 net of one layer of {shape.hidden_size} ({dtype or 'no fc.weight'}): "
            f"{', '.join(mismatches)}; give a net in that layout"
        )
    return net


def reasons(net: Eagle, shape: ModelShape, kv_cache: str, tp: int, pp: int) -> Iterator[str]:
    """Yields why the net does not go with a model and its layout, each with the recipe field to change."""
    if shape.architecture not in BASES:
        yield (
            f"speculative.mode: TensorRT-LLM adds EAGLE's net to no {shape.architecture}; choose a model of "
            f"{', '.join(BASES)}, or another mode"
        )
    for field, net_value, model_value in _list_shared_fields(net, shape):
        if net_value != model_value:
            yield (
                f"speculative.draft: the net's {field} is {net_value}, the model's {model_value}; choose a "
                "net that was trained for this model, in its type"
            )
    if kv_cache != "auto":
        yield (
            f"kv_cache: {kv_cache} needs scales of every layer, and EAGLE's net, whose keys and values lie "
            "in the same pool, has none; choose auto"
        )
    if shape.hidden_size % tp:
        yield f"engine.tp: {tp} does not divide the {shape.hidden_size} outputs of the net's fc"
    if pp > 1:
        yield (
            f"engine.pp: TensorRT-LLM supports EAGLE with tensor parallelism only, found {pp} stages; set "
            "engine.pp to 1"
        )
    for reason in layout_reasons(net.shape, PLAIN, tp, 1):
        yield f"speculative.draft: {reason}"


def tensors(net: Eagle, shape: ModelShape, place: Place, max_draft_len: int) -> list[LocalTensor]:
    """Lists the tensors of every copy of the net on one rank."""
    kin, tensors = family(shape.architecture), []
    head = kin.embedding if shape.tie_word_embeddings else kin.head
    for level in range(eagle.depth(eagle.tree(max_draft_len))):
        prefix = f"eagle_nets.{level}"
        level_tensors = list(_list_drafter_tensors(net, f"{prefix}.drafter", place))
        # The first copy owns the elements for the audit; the others repeat them with the reason COPY.
        tensors += level_tensors if level == 0 else [_mark_copy(tensor) for tensor in level_tensors]
        tensors.append(_mark_copy(table(f"{prefix}.lm_head.weight", head, shape, place)))
    return tensors


def config(
    base: Mapping[str, Any], net: Eagle, shape: ModelShape, max_draft_len: int, tp: int
) -> dict[str, Any]:
    """Changes a model's config.json into that of model and net; quantization leaves the net alone."""
    block, tree = dict(base["quantization"]), eagle.tree(max_draft_len)
    # The net has no scales. Without this pattern TensorRT-LLM would look for them and fail.
    if "exclude_modules" in block:
        block["exclude_modules"] = [*block["exclude_modules"], MODULES]
    return {
        **base,
        "architecture": ARCHITECTURE,
        "num_eagle_layers": eagle.depth(tree),
        "max_draft_len": max_draft_len,
        "max_non_leaves_per_layer": eagle.widest(tree),
        "eagle_net_config": engine_config(replace(net.shape, dtype=shape.dtype), PLAIN, tp, 1),
        "quantization": block,
    }


def _list_shared_fields(net: Eagle, shape: ModelShape) -> Iterator[tuple[str, Any, Any]]:
    """What net and model must have in common."""
    net_shape = net.shape
    yield "hidden size", net_shape.hidden_size, shape.hidden_size
    yield "vocabulary", net_shape.vocab_size, shape.vocab_size
    yield "type", net.dtype, SOURCE_TYPES[shape.dtype]
    yield "head size", net_shape.head_dim, shape.head_dim
    yield "number of key heads", net_shape.num_kv_heads, shape.num_kv_heads
    yield "rotary base", net_shape.rope_theta, shape.rope_theta
    yield "rotary scaling", net_shape.rope_scaling, shape.rope_scaling


def _list_layer_modules(shape: ModelShape) -> list[Module]:
    """The modules of the net's layer: a Llama layer without its first norm."""
    return [each for each in family(BASES[0]).layer(shape) if each.local != FIRST_NORM]


def _describe_fc(net: Eagle) -> Linear:
    hidden = net.shape.hidden_size
    return Linear("fc", "column", (Part("fc", hidden, hidden),), 2 * hidden, net.bias)


def _list_source_shapes(net: Eagle) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields name and shape of every tensor of the net."""
    shape = net.shape
    hidden = shape.hidden_size
    yield "embed_tokens.weight", (shape.vocab_size, hidden)
    yield "fc.weight", (hidden, 2 * hidden)
    if net.bias:
        yield "fc.bias", (hidden,)
    for module in _list_layer_modules(shape):
        if isinstance(module, Norm):
            yield f"layers.0.{module.source}.weight", (module.size,)
        elif isinstance(module, Linear):
            for part in module.parts:
                yield f"layers.0.{part.source}.weight", (part.outputs, module.inputs)


def _list_drafter_tensors(net: Eagle, prefix: str, place: Place) -> Iterator[LocalTensor]:
    """Lists the tensors of one copy but for its output head."""
    shape, names = net.shape, (f"{prefix}.fc", PREFIX.removesuffix("."))
    yield table(f"{prefix}.vocab_embedding.weight", f"{PREFIX}embed_tokens.weight", shape, place)
    yield from module_tensors(_describe_fc(net), names, shape, PLAIN, place)
    if not net.bias:
        # TensorRT-LLM's `fc` always has a bias, and its loader refuses a file without one.
        rows = (shape.hidden_size // place.tp,)
        yield LocalTensor(f"{prefix}.fc.bias", net.dtype, rows, (Fill(0, rows, NO_BIAS),))
    for module in _list_layer_modules(shape):
        names = (f"{prefix}.layers.0.{module.local}", f"{PREFIX}layers.0")
        yield from module_tensors(module, names, shape, PLAIN, place)


def _mark_copy(tensor: LocalTensor) -> LocalTensor:
    """The same tensor as a copy of elements that another one has."""
    parts = tuple(
        replace(part, reason=part.reason or COPY) if isinstance(part, Slice) else part
        for part in tensor.parts
    )
    return replace(tensor, parts=parts)
