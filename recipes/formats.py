"""The quantization formats, one row each: everything the rest of the program asks about a format."""

from dataclasses import dataclass
from typing import Final, Literal

WeightType = Literal["source", "float8_e4m3fn", "int8", "int4"]
ActivationType = Literal["source", "float8_e4m3fn", "int8"]
Granularity = Literal["none", "tensor", "channel", "block"]


@dataclass(frozen=True, slots=True)
class Format:
    """One quantization format, in our words and in the vendors'."""

    name: str
    modelopt_cfg: str
    """Name of ModelOpt's preset; empty for `none`."""
    weight: WeightType
    granularity: Granularity
    """What one weight scale covers."""
    block_size: int
    """Input channels that share one weight scale; 0 unless the granularity is `block`."""
    activation: ActivationType
    """Type that a linear's input is rounded to, with one static scale per tensor."""
    smoothed: bool
    """Inputs are multiplied by a per-channel `pre_quant_scale` before the linear."""
    calibrated: bool
    """Needs a calibration set."""
    quant_algo: str
    """TensorRT-LLM's name; empty for `none`."""
    min_sm: int
    """Lowest compute capability that serves it, times ten; 0: every target."""
    weight_bits: int
    """Bits per weight element; 16 stands for the source dtype."""


E4M3: Final = "float8_e4m3fn"

FORMATS = {
    row[0]: Format(*row)
    for row in (
        # name       ModelOpt preset          weight    scale per  block activation smoothed calibrated
        #      TensorRT-LLM quant_algo, lowest sm, bits
        ("none",     "",                      "source", "none",    0,    "source", False, False,
               "", 0, 16),
        ("fp8",      "FP8_DEFAULT_CFG",       E4M3,     "tensor",  0,    E4M3,     False, True,
               "FP8", 89, 8),
        ("int8_sq",  "INT8_SMOOTHQUANT_CFG",  "int8",   "channel", 0,    "int8",   True,  True,
               "W8A8_SQ_PER_CHANNEL", 80, 8),
        ("int4_awq", "INT4_AWQ_CFG",          "int4",   "block",   128,  "source", True,  True,
               "W4A16_AWQ", 80, 4),
        ("int8_wo",  "INT8_WEIGHT_ONLY_CFG",  "int8",   "channel", 0,    "source", False, False,
               "W8A16", 80, 8),
    )
}  # fmt: skip
"""Formats that Enginery builds, by name."""

LATER = ("fp8_rowwise", "w4a8_awq", "int4_wo", "nvfp4")
"""Formats of the design that this version does not build yet; a recipe that names one is told so."""
