"""Which slices of which experts' tensors make up a rank's stacks; pure.

TensorRT-LLM's experts are one tensor for all that a rank holds, the expert first. Dim 1 is outputs:

    tensor of a stack         fc (column-parallel)            proj (row-parallel)
    weight                    [E, 2 I, H], up before gate     [E, H, I]
    scale per tensor          [E, 1], up and gate share it    [E, 1]
    scale per channel         [E, 2 I]                        [E, H]
    scale per block           [E, 2 I, H / block]             [E, H, I / block]
    input scale               [1], all experts share it       [1], all experts share it

The experts are divided among `ep` ranks, and each one's channels I among the other `tp / ep`. For fp8 these
are the shapes that `MOEWeightWrapper` of TensorRT-LLM's layers/moe.py declares (0.16 and the 1.0 era agree);
scales per channel and per block follow its linears.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.checkpoint.modules import Linear, Part
from pipeline.checkpoint.rank_place import SOURCE_TYPES, WEIGHT_TYPES, WHOLE, Place, share
from pipeline.checkpoint.tensor_parts import LocalTensor, Range, Slice
from pipeline.models.shape import ModelShape
from recipes.formats import Format

SHARED_SCALE = "the ranks that split an expert need its scale"


@dataclass(frozen=True, slots=True)
class StackPlan:
    """Plans the tensors of one stack on one rank."""

    linear: Linear
    local: str
    layer: str
    shape: ModelShape
    fmt: Format
    place: Place

    def tensors(self) -> Iterator[LocalTensor]:
        """Lists weight and scales."""
        if self.fmt.weight == "source":
            yield self._rows("weight", "weight", SOURCE_TYPES[self.shape.dtype], step=1)
            return
        yield self._rows("weight", "weight", WEIGHT_TYPES[self.fmt.weight], step=1)
        if self.fmt.granularity == "tensor":
            yield self._scale()
        else:
            yield self._rows("weight_scale", "weights_scaling_factor", "F32", step=self.fmt.block_size)
        if self.fmt.input_scale == "static":
            yield self._input_scale()

    @property
    def _column(self) -> bool:
        return self.linear.split == "column"

    def _experts(self) -> tuple[tuple[str, ...], ...]:
        """The source linears of each expert of the rank."""
        # Experts are single units: ep ranks hold consecutive, equal runs of them.
        start, stop = share(self.linear.experts, self.linear.experts, self.place.ep, self.place.ep_rank)
        return self.linear.by_expert[start:stop]

    def _share(self, size: int) -> Range:
        return share(size, size, self.place.moe_tp, self.place.moe_tp_rank)

    def _rows(self, source: str, local: str, dtype: str, *, step: int) -> LocalTensor:
        """Plans a tensor of outputs (dim 1) and of one element per `step` inputs (dim 2; 0: no dim 2)."""
        packed = 2 if source == "weight" and self.fmt.weight == "int4" else 1
        start, stop = (0, self.linear.inputs) if self._column else self._share(self.linear.inputs)
        columns: tuple[Range, ...] = ((start // step, stop // step),) if step else ()
        width = (self.linear.inputs // step,) if step else ()
        parts = []
        for expert in self._experts():
            # Expert by expert, up before gate: the slices in this order are [E, rows, ...].
            for part, module in zip(self.linear.parts, expert, strict=True):
                first, last, reason = self._outputs(part, divided=bool(step))
                rows = (first // packed, last // packed)
                shape = (part.outputs // packed, *width)
                parts.append(Slice(self._name(module, source), dtype, shape, (rows, *columns), reason))
        experts, each = len(self._experts()), len(self.linear.parts)
        outputs = sum(part.extent[0] for part in parts[:each])
        stored_dtype = "I8" if packed == 2 else dtype
        total = (experts, outputs, *parts[0].extent[1:])
        return LocalTensor(f"{self.local}.{local}", stored_dtype, total, tuple(parts))

    def _outputs(self, part: Part, *, divided: bool) -> tuple[int, int, str]:
        if self._column:
            return (*self._share(part.outputs), "")
        return 0, part.outputs, SHARED_SCALE if self.place.moe_tp > 1 and not divided else ""

    def _scale(self) -> LocalTensor:
        """Plans one scale per expert: taken from its first linear, equal in the others."""
        reason = SHARED_SCALE if self.place.moe_tp > 1 else ""
        scales = [
            [Slice(self._name(module, "weight_scale"), "F32", (), (), reason) for module in expert]
            for expert in self._experts()
        ]
        firsts, others = (
            tuple(each[0] for each in scales),
            tuple(scale for each in scales for scale in each[1:]),
        )
        name = f"{self.local}.weights_scaling_factor"
        return LocalTensor(name, "F32", (len(scales), 1), firsts, others)

    def _input_scale(self) -> LocalTensor:
        """Plans the one input scale: taken from the rank's first expert, equal in all."""
        reason = WHOLE if self.place.moe_tp > 1 else ""
        modules = [module for expert in self._experts() for module in expert]
        # A token's quantized input is sent to several experts, so all of them must use one scale.
        first, *others = (Slice(self._name(each, "input_scale"), "F32", (), (), reason) for each in modules)
        name = f"{self.local}.activation_scaling_factor"
        return LocalTensor(name, "F32", (1,), (first,), tuple(others))

    def _name(self, module: str, tensor: str) -> str:
        return f"{self.layer}.{module}.{tensor}"
