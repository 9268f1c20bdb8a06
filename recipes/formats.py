"""The quantization formats, one row each: everything that the program needs to know about a format."""

from dataclasses import dataclass
from typing import Final, Literal

WeightType = Literal["source", "float8_e4m3fn", "int8", "int4"]
ActivationType = Literal["source", "float8_e4m3fn", "int8"]
Granularity = Literal["none", "tensor", "channel", "block"]
Ranges = Literal["none", "static", "dynamic"]
Smoothing = Literal["none", "alpha", "search"]
Needs = Literal["none", "ranges", "search"]


@dataclass(frozen=True, slots=True)
class Format:
    """One quantization format, with its names at the vendors."""

    name: str
    modelopt_cfg: str
    """Name of ModelOpt's preset; empty for `none`."""
    weight: WeightType
    granularity: Granularity
    """Elements that share one weight scale."""
    block_size: int
    """Input channels that share one weight scale; 0 unless the granularity is `block`."""
    activation: ActivationType
    """Type that a linear's input is rounded to."""
    input_scale: Ranges
    """`static`: one calibrated scale per tensor; `dynamic`: one per token, computed while serving."""
    smoothing: Smoothing
    """How the per-channel `pre_quant_scale` of inputs is chosen: SmoothQuant's alpha, or AWQ's search."""
    quant_algo: str
    """TensorRT-LLM's name; empty for `none`."""
    min_sm: int
    """Lowest compute capability that serves it, times ten; 0: every target."""
    weight_bits: int
    """Bits per weight element; 16 stands for the source dtype."""

    @property
    def smoothed(self) -> bool:
        """Inputs are multiplied by a per-channel `pre_quant_scale` before the linear."""
        return self.smoothing != "none"

    @property
    def needs(self) -> Needs:
        """What calibration must record: nothing, ranges, or ranges and AWQ's search."""
        if self.smoothing == "search":
            return "search"
        return "ranges" if self.smoothed or self.input_scale == "static" else "none"

    @property
    def calibrated(self) -> bool:
        """Needs a calibration set."""
        return self.needs != "none"

    @property
    def two_level(self) -> bool:
        """Whether runtimes round dequantized block weights to e4m3, under a second scale per tensor."""
        return self.granularity == "block" and self.activation != "source"


E4M3: Final = "float8_e4m3fn"

FORMATS = {
    row[0]: Format(*row)
    for row in (
        # name, ModelOpt preset
        #   weight, scale per, block, activation, input scales, smoothing, TensorRT-LLM quant_algo, sm, bits
        ("none", "",
            "source", "none", 0, "source", "none", "none", "", 0, 16),
        ("fp8", "FP8_DEFAULT_CFG",
            E4M3, "tensor", 0, E4M3, "static", "none", "FP8", 89, 8),
        ("fp8_rowwise", "FP8_PER_CHANNEL_PER_TOKEN_CFG",
            E4M3, "channel", 0, E4M3, "dynamic", "none", "FP8_PER_CHANNEL_PER_TOKEN", 89, 8),
        ("int8_sq", "INT8_SMOOTHQUANT_CFG",
            "int8", "channel", 0, "int8", "static", "alpha", "W8A8_SQ_PER_CHANNEL", 80, 8),
        ("int4_awq", "INT4_AWQ_CFG",
            "int4", "block", 128, "source", "none", "search", "W4A16_AWQ", 80, 4),
        ("w4a8_awq", "W4A8_AWQ_BETA_CFG",
            "int4", "block", 128, E4M3, "static", "search", "W4A8_AWQ", 89, 4),
        ("int8_wo", "INT8_WEIGHT_ONLY_CFG",
            "int8", "channel", 0, "source", "none", "none", "W8A16", 80, 8),
        ("int4_wo", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG",
            "int4", "block", 128, "source", "none", "none", "W4A16", 80, 4),
    )
}  # fmt: skip
"""Formats that Enginery builds, by name."""

LATER = {
    "nvfp4": "it is calibrated and served on sm_100 GPUs only, and no backend of this version targets one",
}
"""Planned format -> why this version does not build it."""

EXPERT_REFUSALS = {
    "fp8_rowwise": "TensorRT-LLM's experts have no scales per token (its MixtureOfExperts raises)",
    "int8_sq": "TensorRT-LLM's experts have no int8 activations, nor factors that smooth them",
    "int4_awq": "the router reads the same inputs, so no norm can carry the experts' smoothing",
    "w4a8_awq": "the router reads the same inputs, so no norm can carry the experts' smoothing",
}
"""Format -> why the experts of a model cannot have it; its other linears can."""
