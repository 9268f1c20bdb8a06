"""Advice on what ranges are measured on, and on what accuracy is judged by."""

from pipeline.backend.lint_rule import Advice
from pipeline.models.shape import ModelShape
from recipes.schema import Recipe

FEW_TOKENS = 64 * 256
"""Scored tokens of the demo's gate, whose intervals are known."""

INTERVAL = "64 x 256 tokens told a KL divergence to 5 %, four times as many would to half of that"


def calibration_length(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Ranges measured on shorter texts than are served."""
    calibration, longest = recipe.calibration, recipe.engine.max_seq_len
    if calibration is None or not recipe.needs_calibration or calibration.seq_len >= longest:
        return None
    length = recipe.traffic.input_tokens + recipe.traffic.output_tokens if recipe.traffic else longest
    if calibration.seq_len >= length:
        return None
    return Advice(
        id="calibration_length",
        text=f"ranges are measured on {calibration.seq_len} tokens, requests have {length}: later positions "
        "are not measured",
        effect="not measured; the gate sees it only where its own sequences are that long",
        source="recipe",
        change=f"calibration.seq_len: {length}",
    )


def gate_length(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Accuracy judged on shorter texts than are served."""
    traffic, gate = recipe.traffic, recipe.gate
    if traffic is None or gate.seq_len >= min(traffic.input_tokens, recipe.engine.max_seq_len):
        return None
    return Advice(
        id="gate_length",
        text=f"the gate scores {gate.seq_len} tokens, prompts have {traffic.input_tokens}: errors that grow "
        "with the length, such as those of an eight-bit cache, are not seen",
        effect="not measured",
        source="recipe",
        change=f"gate.seq_len: {min(traffic.input_tokens, recipe.engine.max_seq_len)}",
    )


def gate_size(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Accuracy judged on few tokens."""
    gate = recipe.gate
    if gate.max_sequences == "all" or gate.max_sequences * gate.seq_len >= FEW_TOKENS:
        return None
    return Advice(
        id="gate_size",
        text=f"the gate scores {gate.max_sequences * gate.seq_len:,} tokens: the interval around each metric "
        "is wide, and a good engine may be refused",
        effect=INTERVAL,
        source="the demo's gate (README, first screen)",
        change=f"gate.max_sequences: {-(-4 * FEW_TOKENS // gate.seq_len)}",
    )
