"""Which slice of which source tensor goes to which rank, under which name; pure.

Everything follows from the model's shape, the precision and the layout; no file is opened. Dim 0 is outputs:

    tensor of a linear        column-parallel        row-parallel
    weight                    dim 0                  dim 1
    bias                      dim 0                  whole
    scale per tensor          whole                  whole
    scale per channel         dim 0                  whole
    scale per block           dim 0                  dim 1
    input scale               whole                  whole
    scale of block scales     whole                  whole
    smoothing (per input)     whole                  dim 0

int4 weights hold two output channels per byte along dim 0. Vocabulary tables are cut along dim 0, after zero
rows are added up to a multiple of tp. Two values are computed: the scales of keys and values become one
(Largest), and norms that multiply by one plus their weight become that sum (PlusOne). Experts are stacked:
`pipeline.checkpoint.stacking`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.checkpoint import stacking
from pipeline.checkpoint.families import family
from pipeline.checkpoint.modules import Family, Linear, Module, Norm, Part, Whole
from pipeline.checkpoint.rank_place import SOURCE_TYPES, WEIGHT_TYPES, WHOLE, Place, share
from pipeline.checkpoint.tensor_parts import Fill, Largest, LocalTensor, Piece, PlusOne, Range, Slice
from pipeline.models.shape import ModelShape
from recipes.formats import Format
from recipes.precision import Precision

TIED = "the output head is the embedding table"
FOLDED = "the smoothing is folded into the norm before it"
PADDED = "rows up to a multiple of tp"

KV_FLOORS = {"fp8": 1.0, "int8": 0.0}
"""Smallest scale of a KV cache, by its type: in this layout ModelOpt writes no fp8 scale below one."""


def padded_vocab(shape: ModelShape, tp: int) -> int:
    """Rows of the vocabulary tables once tp divides them."""
    return math.ceil(shape.vocab_size / tp) * tp


def stage_layers(num_layers: int, pp: int, pp_rank: int) -> range:
    """Global indices of a stage's layers."""
    if num_layers % pp:
        raise ValueError(f"pp {pp} does not divide {num_layers} layers")
    each = num_layers // pp
    return range(pp_rank * each, (pp_rank + 1) * each)


def plan_rank(
    shape: ModelShape, precision: Precision, place: Place, kv_cache: str = "auto"
) -> list[LocalTensor]:
    """Lists the tensors of one rank file, in the order of the model; fused linears have one format."""
    before, after = _list_edge_tensors(shape, place)
    layers = enumerate(stage_layers(shape.num_layers, place.pp, place.pp_rank))
    inside = (
        tensor for index in layers for tensor in _list_layer_tensors(shape, precision, place, index, kv_cache)
    )
    return [*before, *inside, *after]


def _list_edge_tensors(shape: ModelShape, place: Place) -> tuple[list[LocalTensor], list[LocalTensor]]:
    """Lists a rank's tensors before and after the layers of its stage."""
    kin, before, after = family(shape.architecture), [], []
    if place.pp_rank == 0:
        before.append(table("transformer.vocab_embedding.weight", kin.embedding, shape, place))
    if place.pp_rank == place.pp - 1:
        norm = Norm("transformer.ln_f", kin.final_norm, shape.hidden_size, plus_one=shape.norm_offset)
        after.append(_plan_norm(norm, norm.local, norm.source, shape, place.tp))
        # A tied head is written out a second time, from the embedding: TensorRT-LLM loads two tables.
        head = kin.embedding if shape.tie_word_embeddings else kin.head
        after.append(table("lm_head.weight", head, shape, place, TIED if head == kin.embedding else ""))
    return before, after


def plan(
    shape: ModelShape, precision: Precision, tp: int, pp: int, kv_cache: str = "auto", ep: int = 1
) -> list[list[LocalTensor]]:
    """Lists the tensors of every rank file, by rank."""
    return [plan_rank(shape, precision, Place(tp, pp, rank, ep), kv_cache) for rank in range(tp * pp)]


def rank_bytes(
    shape: ModelShape, precision: Precision, tp: int, pp: int, kv_cache: str = "auto", ep: int = 1
) -> list[int]:
    """Bytes of tensor data in every rank file, by rank; the header adds about 150 per tensor.

    The tensor-parallel ranks of a stage are equally large, so one of each stage is planned.
    """
    # `plan` must stay under a second also for thousands of experts on many ranks.
    firsts = [Place(tp, pp, stage * tp, ep) for stage in range(pp)]
    stages = [_count_stage_bytes(shape, precision, first, kv_cache) for first in firsts]
    return [nbytes for nbytes in stages for _ in range(tp)]


def _count_stage_bytes(shape: ModelShape, precision: Precision, place: Place, kv_cache: str) -> int:
    """Bytes of one rank file; layers of the same formats are equally large, and one of each is planned."""
    kin, sizes = family(shape.architecture), dict[tuple[str, ...], int]()
    linears = [module.sources[0] for module in kin.layer(shape) if isinstance(module, Linear)]
    total = sum(tensor.nbytes for tensors in _list_edge_tensors(shape, place) for tensor in tensors)
    for index in enumerate(stage_layers(shape.num_layers, place.pp, place.pp_rank)):
        formats = tuple(precision.of(f"{kin.layers}.{index[1]}.{linear}").name for linear in linears)
        # Slices depend on the layer's number only by name: equal formats mean equal bytes.
        if formats not in sizes:
            tensors = _list_layer_tensors(shape, precision, place, index, kv_cache)
            sizes[formats] = sum(tensor.nbytes for tensor in tensors)
        total += sizes[formats]
    return total


def _list_layer_tensors(
    shape: ModelShape, precision: Precision, place: Place, index: tuple[int, int], kv_cache: str
) -> Iterator[LocalTensor]:
    """Lists one layer's tensors; `index` is its number in the stage and in the model."""
    kin = family(shape.architecture)
    rank_prefix, source_prefix = f"transformer.layers.{index[0]}", f"{kin.layers}.{index[1]}"
    for module in kin.layer(shape):
        yield from module_tensors(
            module, (f"{rank_prefix}.{module.local}", source_prefix), shape, precision, place
        )
    if kv_cache != "auto":
        yield _plan_kv_scale(kin, index, KV_FLOORS[kv_cache], place.tp)


def module_tensors(
    module: Module, names: tuple[str, str], shape: ModelShape, precision: Precision, place: Place
) -> Iterator[LocalTensor]:
    """Lists one module's tensors; `names` are the local module's and the source layer's."""
    local, source_prefix = names
    if isinstance(module, Norm):
        yield _plan_norm(module, local, f"{source_prefix}.{module.source}", shape, place.tp)
    elif isinstance(module, Whole):
        yield _plan_whole(local, f"{source_prefix}.{module.source}", module, shape, place.tp)
    else:
        fmt = precision.of(f"{source_prefix}.{module.sources[0]}")
        plan_type = stacking.StackPlan if module.experts else _LinearPlan
        yield from plan_type(module, local, source_prefix, shape, fmt, place).tensors()


def _plan_kv_scale(kin: Family, index: tuple[int, int], floor: float, tp: int) -> LocalTensor:
    """Plans the one scale of a layer's keys and values."""
    local, source_prefix = f"transformer.layers.{index[0]}", f"{kin.layers}.{index[1]}"
    reason = WHOLE if tp > 1 else ""
    # TensorRT-LLM has one scale for keys and values; the larger one loses precision, never range.
    sources = tuple(Slice(f"{source_prefix}.{name}", "F32", (), (), reason) for name in kin.kv_scales)
    name = f"{local}.attention.kv_cache_scaling_factor"
    return LocalTensor(name, "F32", (1,), (Largest(sources, floor),))


def _plan_norm(norm: Norm, local: str, source: str, shape: ModelShape, tp: int) -> LocalTensor:
    """Plans a norm's weight; `local` and `source` are its names in full."""
    dtype, reason = SOURCE_TYPES[shape.dtype], WHOLE if tp > 1 else ""
    part = Slice(f"{source}.weight", dtype, (norm.size,), ((0, norm.size),), reason)
    piece = PlusOne(part) if norm.plus_one else part
    return LocalTensor(f"{local}.weight", dtype, (norm.size,), (piece,))


def _plan_whole(local: str, source: str, module: Whole, shape: ModelShape, tp: int) -> LocalTensor:
    ranges, dtype = tuple((0, size) for size in module.shape), SOURCE_TYPES[shape.dtype]
    part = Slice(f"{source}.weight", dtype, module.shape, ranges, WHOLE if tp > 1 else "")
    return LocalTensor(f"{local}.weight", "F32" if module.widened else dtype, module.shape, (part,))


def table(local: str, source: str, shape: ModelShape, place: Place, reason: str = "") -> LocalTensor:
    """Plans a rank's rows of a vocabulary table; `source` is the source tensor's name in full."""
    dtype, width, vocab = SOURCE_TYPES[shape.dtype], shape.hidden_size, shape.vocab_size
    # Only the last ranks hold padding; with a small vocabulary a rank may hold nothing else.
    rows = padded_vocab(shape, place.tp) // place.tp
    start, stop = (min(vocab, (place.tp_rank + more) * rows) for more in (0, 1))
    parts: list[Piece] = []
    if stop > start:
        parts.append(Slice(source, dtype, (vocab, width), ((start, stop), (0, width)), reason))
    if missing := rows - (stop - start):
        parts.append(Fill(0, (missing, width), PADDED))
    return LocalTensor(local, dtype, (rows, width), tuple(parts))


@dataclass(frozen=True, slots=True)
class _LinearPlan:
    """Plans the tensors of one linear on one rank."""

    linear: Linear
    local: str
    layer: str
    shape: ModelShape
    fmt: Format
    place: Place

    def tensors(self) -> Iterator[LocalTensor]:
        """Lists weight, bias and scales."""
        dtype = SOURCE_TYPES[self.shape.dtype]
        if self.fmt.weight == "source":
            yield self._rows("weight", "weight", dtype, step=1)
        else:
            yield self._rows("weight", "weight", WEIGHT_TYPES[self.fmt.weight], step=1)
            yield self._weight_scale()
        if self.fmt.two_level:
            yield self._once("weight_scale_2", "weights_scaling_factor_2", "F32", ())
        if self.fmt.input_scale == "static":
            yield self._once("input_scale", "activation_scaling_factor", "F32", ())
        if self.fmt.smoothed:
            yield self._smoothing(dtype)
        if self.linear.bias:
            yield self._rows("bias", "bias", dtype, step=0)

    @property
    def _column(self) -> bool:
        return self.linear.split == "column"

    def _inputs(self) -> Range:
        tp, size = self.place.tp, self.linear.inputs
        return (0, size) if self._column else share(size, size, tp, self.place.tp_rank)

    def _rows(self, source: str, local: str, dtype: str, *, step: int) -> LocalTensor:
        """Plans a tensor of outputs (dim 0) and of one element per `step` inputs (dim 1; 0: no dim 1)."""
        # ModelOpt packs channels 2n and 2n + 1 into one byte, so rows are cut at even channels
        # (layout_checks._check_pairs) and counted in bytes.
        packed = 2 if source == "weight" and self.fmt.weight == "int4" else 1
        start, stop = self._inputs()
        columns: tuple[Range, ...] = ((start // step, stop // step),) if step else ()
        width = (self.linear.inputs // step,) if step else ()
        parts = []
        for part in self.linear.parts:
            first, last, reason = self._outputs(part, divided=bool(step))
            rows = ((part.start + first) // packed, (part.start + last) // packed)
            # The source's own shape: Phi-3 keeps several parts in one tensor, of which this is one range.
            shape = (part.held // packed, *width)
            parts.append(Slice(self._source(part.source, source), dtype, shape, (rows, *columns), reason))
        total = (sum(part.extent[0] for part in parts), *parts[0].extent[1:])
        stored_dtype = "I8" if packed == 2 else dtype
        return LocalTensor(f"{self.local}.{local}", stored_dtype, total, tuple(parts))

    def _outputs(self, part: Part, *, divided: bool) -> tuple[int, int, str]:
        tp = self.place.tp
        if self._column:
            reason = f"{tp // part.units} ranks share each head" if part.units < tp else ""
            return (*share(part.outputs, part.units, tp, self.place.tp_rank), reason)
        return 0, part.outputs, WHOLE if tp > 1 and not divided else ""

    def _weight_scale(self) -> LocalTensor:
        name = "per_channel_scale" if self.fmt.input_scale == "dynamic" else "weights_scaling_factor"
        if self.fmt.granularity == "tensor":
            return self._once("weight_scale", name, "F32", ())
        return self._rows("weight_scale", name, "F32", step=self.fmt.block_size)

    def _once(self, source: str, local: str, dtype: str, shape: tuple[int, ...]) -> LocalTensor:
        """Plans a tensor that the parts share: taken from the first, equal in the others."""
        reason = WHOLE if self.place.tp > 1 else ""
        ranges = tuple((0, size) for size in shape)
        names = dict.fromkeys(self._source(part.source, source) for part in self.linear.parts)
        # check_scales compared their bytes; the audit lists them as equal, so none counts as lost.
        first, *others = (Slice(name, dtype, shape, ranges, reason) for name in names)
        return LocalTensor(f"{self.local}.{local}", dtype, shape or (1,), (first,), tuple(others))

    def _smoothing(self, dtype: str) -> LocalTensor:
        name, inputs = "prequant_scaling_factor", self.linear.inputs
        # int4_awq multiplies the factors into the norm; TensorRT-LLM still demands a tensor of that name.
        if self._column and self.fmt.granularity == "block" and self.shape.folds_smoothing:
            return LocalTensor(f"{self.local}.{name}", dtype, (inputs,), (Fill(1, (inputs,), FOLDED),))
        if self._column:
            return self._once("pre_quant_scale", name, dtype, (inputs,))
        local_inputs = self._inputs()
        source = self._source(self.linear.parts[0].source, "pre_quant_scale")
        part = Slice(source, dtype, (inputs,), (local_inputs,))
        return LocalTensor(f"{self.local}.{name}", dtype, part.extent, (part,))

    def _source(self, module: str, tensor: str) -> str:
        return f"{self.layer}.{module}.{tensor}"
