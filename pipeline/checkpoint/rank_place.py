"""Where a rank stands in a layout, and which part of something divided is its own; pure."""

from dataclasses import dataclass

from pipeline.checkpoint.tensor_parts import Range

SOURCE_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
WEIGHT_TYPES = {"float8_e4m3fn": "F8_E4M3", "int8": "I8", "int4": "U8"}
"""Stored type in the quantized checkpoint; TensorRT-LLM reads packed int4 as I8, the same bytes."""

WHOLE = "every tensor-parallel rank needs it whole"


@dataclass(frozen=True, slots=True)
class Place:
    """One rank of a layout."""

    tp: int
    pp: int
    rank: int
    ep: int = 1
    """Of the `tp` ranks, how many hold different experts; the others split each expert."""

    @property
    def tp_rank(self) -> int:
        """Position among the ranks that split a layer; it runs fastest."""
        return self.rank % self.tp

    @property
    def pp_rank(self) -> int:
        """Stage of the stack of layers."""
        return self.rank // self.tp

    @property
    def moe_tp(self) -> int:
        """Ranks that split an expert."""
        return self.tp // self.ep

    @property
    def moe_tp_rank(self) -> int:
        """Position among them, as TensorRT-LLM's `Mapping` has it."""
        return self.tp_rank // self.ep

    @property
    def ep_rank(self) -> int:
        """Position among the ranks that hold different experts; it runs fastest, as in TensorRT-LLM."""
        return self.tp_rank % self.ep


def share(size: int, units: int, tp: int, tp_rank: int) -> Range:
    """Range of `size` channels, made of equal units, that a rank holds; too few units are repeated."""
    unit = size // units
    if units % tp == 0:
        each = units // tp * unit
        return tp_rank * each, (tp_rank + 1) * each
    # Grouped-query attention with fewer key heads than ranks: tp / units neighbours hold the same head.
    if tp % units == 0:
        first = tp_rank // (tp // units) * unit
        return first, first + unit
    raise ValueError(f"tp {tp} and {units} units do not divide one another")
