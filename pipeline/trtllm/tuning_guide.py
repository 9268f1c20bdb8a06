"""What NVIDIA measured for its tuning guide, step by step."""

from dataclasses import dataclass

SOURCE = "NVIDIA's tuning guide: Llama-3.3-70B, TP 4 on H100, 2048 + 2048 tokens, TensorRT-LLM 0.16"


@dataclass(frozen=True, slots=True)
class Measured:
    """One configuration of the guide; the guide calls 10 tokens/s and 2 ms noise."""

    tokens_per_s: float
    ttft_ms: float | None = None
    """Time to the first token."""
    itl_ms: float | None = None
    """Time between tokens."""


STEPS = {
    "bf16": Measured(1564.30, 147.70, 31.33),
    "profiles": Measured(1861.09, 145.90, 19.65),
    "paged_context": Measured(1866.67, 145.41, 19.65),
    "gemm_plugin": Measured(2033.26, 147.83, 15.41),
    "reduce_fusion": Measured(2044.26, 146.66, 14.45),
    "batch_64": Measured(1944.30, None, 14.65),
    "batch_512": Measured(2466.79, None, 14.66),
    "batch_2048": Measured(2044.26, None, 14.45),
    "tokens_2048": Measured(2474.26),
    "tokens_8192": Measured(2466.79),
    "tokens_16384": Measured(2461.02),
    "fp8": Measured(3389.53, 96.16, 12.42),
    "fp8_kv": Measured(5299.64, 97.13, 12.55),
    "user_buffer": Measured(5980.78, 82.27, 12.70),
    "gemm_swiglu": Measured(5976.80, 81.88, 11.70),
    "low_latency_gemm": Measured(6049.16, 88.02, 10.82),
}
"""Each step keeps what the step before it turned on."""


def effect(before: str, after: str) -> str:
    """What one step of the guide changed, e.g. `1,564 -> 1,861 tokens/s (+19.0 %)`."""
    old, new = STEPS[before], STEPS[after]
    changes = [_change(old.tokens_per_s, new.tokens_per_s, "tokens/s", ",.0f")]
    if old.itl_ms and new.itl_ms:
        changes.append(_change(old.itl_ms, new.itl_ms, "ms between tokens", ".1f"))
    if old.ttft_ms and new.ttft_ms:
        changes.append(_change(old.ttft_ms, new.ttft_ms, "ms to the first", ".0f"))
    return "; ".join(changes)


def _change(old: float, new: float, unit: str, form: str) -> str:
    return f"{old:{form}} -> {new:{form}} {unit} ({100 * (new / old - 1):+.1f} %)"
