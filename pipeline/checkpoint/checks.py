"""Whether a model in a format can be cut into a layout; pure, from `config.json` alone."""

from collections.abc import Iterator

from pipeline.checkpoint.families import family
from pipeline.checkpoint.modules import Linear
from pipeline.shape import ModelShape
from recipes.formats import FORMATS, Format


def reasons(shape: ModelShape, format_name: str, tp: int, pp: int) -> list[str]:
    """Lists why the layout is impossible, each with the recipe field to change; empty if it is possible."""
    found = [*_layers(shape, pp), *_heads(shape, tp), *_channels(shape, tp)]
    return found + (
        [] if found else [*_blocks(shape, FORMATS[format_name], tp), *_pairs(shape, FORMATS[format_name], tp)]
    )


def divisors(number: int, *others: int) -> str:
    """Writes the common divisors in words: `1, 2, 4`."""
    return ", ".join(str(n) for n in range(1, number + 1) if not any(each % n for each in (number, *others)))


def _layers(shape: ModelShape, pp: int) -> Iterator[str]:
    if shape.num_layers % pp:
        yield (
            f"engine.pp: {pp} does not divide {shape.num_layers} layers; "
            f"choose one of {divisors(shape.num_layers)}"
        )


def _heads(shape: ModelShape, tp: int) -> Iterator[str]:
    if shape.num_heads % tp:
        yield (
            f"engine.tp: {tp} does not divide {shape.num_heads} attention heads; "
            f"choose one of {divisors(shape.num_heads, shape.intermediate_size)}"
        )
    if shape.num_kv_heads % tp and tp % shape.num_kv_heads:
        yield (
            f"engine.tp: {tp} neither divides {shape.num_kv_heads} key/value heads nor is their multiple; "
            f"choose one of {divisors(shape.num_kv_heads, shape.num_heads, shape.intermediate_size)}"
        )


def _channels(shape: ModelShape, tp: int) -> Iterator[str]:
    if shape.intermediate_size % tp:
        yield (
            f"engine.tp: {tp} does not divide {shape.intermediate_size} MLP channels; "
            f"choose one of {divisors(shape.num_heads, shape.intermediate_size)}"
        )


def _linears(shape: ModelShape) -> list[Linear]:
    return [module for module in family(shape.architecture).layer(shape) if isinstance(module, Linear)]


def _blocks(shape: ModelShape, fmt: Format, tp: int) -> Iterator[str]:
    """Yields the linears whose inputs, or whose shards' inputs, are not whole blocks of one scale each."""
    block = fmt.block_size
    for linear in _linears(shape) if block else []:
        names = ", ".join(part.source.rpartition(".")[2] for part in linear.parts)
        if linear.inputs % block:
            yield (
                f"format: {fmt.name!r} needs whole {block}-element blocks, {names} has {linear.inputs} "
                "input channels; choose a format without blocks"
            )
        elif linear.split == "row" and linear.inputs % (tp * block):
            yield (
                f"engine.tp: {tp} splits {names} ({linear.inputs} input channels) into shards that are not "
                f"whole {block}-element blocks; choose tp so that {linear.inputs} % (tp * {block}) == 0"
            )


def _pairs(shape: ModelShape, fmt: Format, tp: int) -> Iterator[str]:
    """Yields the linears whose shards do not hold whole pairs of int4 output channels."""
    if fmt.weight != "int4":
        return
    for linear in _linears(shape):
        for part in linear.parts:
            held = part.outputs // (min(tp, part.units) if linear.split == "column" else 1)
            if held % 2:
                yield (
                    f"engine.tp: {tp} gives each rank {held} output channels of "
                    f"{part.source.rpartition('.')[2]}; {fmt.name!r} packs channels in pairs, "
                    "so choose tp so that the number is even"
                )
