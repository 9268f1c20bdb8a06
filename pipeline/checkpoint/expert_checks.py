"""Whether the experts of a model can be cut into a layout, and have a format; pure."""

from collections.abc import Iterator

from pipeline.checkpoint.families import family
from pipeline.checkpoint.modules import Linear
from pipeline.models.shape import ModelShape
from recipes.formats import EXPERT_REFUSALS
from recipes.precision import Precision

SHARED = "mlp.shared_expert."
"""Local modules of the expert that every token is sent to: their format follows the same rules."""


def reasons(shape: ModelShape, tp: int, ep: int) -> Iterator[str]:
    """Yields why experts cannot be divided so; one reason where a model without experts has an ep."""
    experts = shape.experts
    if experts is None:
        if ep > 1:
            yield f"engine.ep: {ep} needs a model with experts, {shape.architecture} has none; leave it out"
        return
    if tp % ep:
        choices = _list_divisors(tp, experts.count)
        yield f"engine.ep: {ep} does not divide engine.tp {tp}; choose one of {choices}"
        return
    if experts.count % ep:
        yield (
            f"engine.ep: {ep} does not divide {experts.count} experts; "
            f"choose one of {_list_divisors(tp, experts.count)}"
        )
    # ep ranks hold different experts, so only tp / ep ranks divide the channels of one.
    if experts.intermediate_size % (tp // ep):
        yield (
            f"engine.tp: {tp // ep} ranks (tp {tp} / ep {ep}) cannot share the {experts.intermediate_size} "
            "channels of an expert equally; choose another tp, or raise engine.ep"
        )
    # The shared expert is a plain MLP: TensorRT-LLM divides it over all tp ranks, whatever ep is.
    if experts.shared_intermediate_size % tp:
        yield (
            f"engine.tp: {tp} does not divide the {experts.shared_intermediate_size} channels of the shared "
            f"expert; choose one of {_list_divisors(experts.shared_intermediate_size, shape.num_heads)}"
        )


def _list_divisors(number: int, other: int) -> str:
    return ", ".join(str(each) for each in range(1, number + 1) if number % each == 0 and other % each == 0)


def refused_formats(shape: ModelShape, precision: Precision) -> Iterator[str]:
    """Yields each format that no expert can have and some expert has, with the way out."""
    refused: dict[str, str] = {}
    for module in _list_linears(shape):
        name = precision.of(module).name
        if name in EXPERT_REFUSALS:
            refused.setdefault(name, module)
    for name, module in refused.items():
        allowed = "none, fp8, int8_wo or int4_wo"
        yield (
            f"format: {name!r} is not built for experts ({module}): {EXPERT_REFUSALS[name]}; "
            f"give '*expert*' a format of {allowed} in format.except"
        )


def _list_linears(shape: ModelShape) -> Iterator[str]:
    """Yields one source linear of every stack and of the shared expert, layer by layer."""
    kin = family(shape.architecture)
    for layer in range(shape.num_layers if shape.experts else 0):
        for module in kin.layer(shape):
            if isinstance(module, Linear) and (module.experts or module.local.startswith(SHARED)):
                yield f"{kin.layers}.{layer}.{module.sources[0]}"
