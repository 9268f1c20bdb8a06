"""Whether a model in a precision can be cut into a layout; pure, from `config.json` alone."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from pipeline.checkpoint import expert_checks
from pipeline.checkpoint.families import family
from pipeline.checkpoint.modules import Linear
from pipeline.models.shape import ModelShape
from recipes.formats import Format
from recipes.precision import Precision

SHOWN = 4
"""Members of a group that are named one by one, at most."""


def reasons(shape: ModelShape, precision: Precision, tp: int, pp: int, ep: int = 1) -> list[str]:
    """Lists why the layout is impossible, each with the recipe field to change; empty if it is possible."""
    problems = [*_check_stages(shape, pp), *_check_heads(shape, tp), *expert_checks.reasons(shape, tp, ep)]
    problems += [
        *(_check_channels(shape, tp) if shape.experts is None else ()),
        *_check_fused_formats(shape, precision),
    ]
    problems += expert_checks.refused_formats(shape, precision)
    # Channels per rank mean nothing while heads or layers do not divide: those problems come first, alone.
    return problems or list(dict.fromkeys(_check_linears(shape, precision, tp, ep)))


def divisors(number: int, *others: int) -> str:
    """Writes the common divisors in words: `1, 2, 4`."""
    return ", ".join(str(n) for n in range(1, number + 1) if not any(each % n for each in (number, *others)))


def _check_stages(shape: ModelShape, pp: int) -> Iterator[str]:
    """Says if stages would differ in size, which no backend loads (`loadable` has TensorRT-LLM's why)."""
    if shape.num_layers % pp:
        yield (
            f"engine.pp: {pp} does not divide {shape.num_layers} layers; "
            f"choose one of {divisors(shape.num_layers)}"
        )


def _check_heads(shape: ModelShape, tp: int) -> Iterator[str]:
    if shape.num_heads % tp:
        yield (
            f"engine.tp: {tp} does not divide {shape.num_heads} attention heads; "
            f"choose one of {divisors(shape.num_heads, _count_inner_channels(shape))}"
        )
    # Either every rank gets the same number of key heads, or the same number of ranks share each.
    if shape.num_kv_heads % tp and tp % shape.num_kv_heads:
        yield (
            f"engine.tp: {tp} neither divides {shape.num_kv_heads} key/value heads nor is their multiple; "
            f"choose one of {divisors(shape.num_kv_heads, shape.num_heads, _count_inner_channels(shape))}"
        )


def _count_inner_channels(shape: ModelShape) -> int:
    """Inner channels that tp must divide, whatever ep is."""
    return shape.intermediate_size if shape.experts is None else shape.num_heads


def _check_channels(shape: ModelShape, tp: int) -> Iterator[str]:
    if shape.intermediate_size % tp:
        yield (
            f"engine.tp: {tp} does not divide {shape.intermediate_size} MLP channels; "
            f"choose one of {divisors(shape.num_heads, shape.intermediate_size)}"
        )


def linears(shape: ModelShape) -> list[str]:
    """Names every linear of the layers in the source checkpoint, in the order they run."""
    kin = family(shape.architecture)
    names = (
        f"{kin.layers}.{layer}.{source}"
        for layer in range(shape.num_layers)
        for module in kin.layer(shape)
        if isinstance(module, Linear)
        for source in module.sources
    )
    return list(dict.fromkeys(names))


def _check_fused_formats(shape: ModelShape, precision: Precision) -> Iterator[str]:
    """Yields the linears that runtimes fuse and the recipe gives different formats, each once."""
    if precision.uniform:  # thousands of experts' names need not be looked at
        return
    kin = family(shape.architecture)
    split: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for layer in range(shape.num_layers):
        for group in kin.groups(shape):
            names = tuple(f"{kin.layers}.{layer}.{module}" for module in group)
            if len({precision.of(name) for name in names}) > 1:
                patterns = [pattern_of(precision, name) for name in names]
                split.setdefault((*group, *patterns), []).append(names)
    for places in split.values():
        formats = ", ".join(
            f"{name} is {_describe_format(precision, name)}" for name in _select_shown(places[0], precision)
        )
        more = f", and so in {len(places) - 1} more layers" if len(places) > 1 else ""
        yield f"format.except: {formats}{more}; runtimes fuse them, so give them one format"


def _select_shown(names: tuple[str, ...], precision: Precision) -> list[str]:
    """Names all members of a small group; of a large one, the first that each format or pattern decides."""
    if len(names) <= SHOWN:
        return list(names)
    # A stack of experts has hundreds of members; one per format and pattern shows the conflict.
    firsts: dict[tuple[str, str], str] = {}
    for name in names:
        firsts.setdefault((precision.of(name).name, pattern_of(precision, name)), name)
    return list(firsts.values())


def pattern_of(precision: Precision, module: str) -> str:
    """The exception that decides a linear's format; empty where the default does."""
    return next((pattern for pattern, _ in precision.exceptions if fnmatchcase(module, pattern)), "")


def _describe_format(precision: Precision, module: str) -> str:
    """A linear's format and what decides it: `int4_awq by 'model.layers.0.*'`."""
    pattern = pattern_of(precision, module)
    return f"{precision.of(module).name} by {repr(pattern) if pattern else 'default'}"


def _check_linears(shape: ModelShape, precision: Precision, tp: int, ep: int) -> Iterator[str]:
    """Yields the linears whose channels the format or the layout cannot divide."""
    kin = family(shape.architecture)
    for layer in range(shape.num_layers):
        for linear in kin.layer(shape):
            if isinstance(linear, Linear):
                module = f"{kin.layers}.{layer}.{linear.sources[0]}"
                where = f"format.except: {pattern!r}: " if (pattern := pattern_of(precision, module)) else ""
                fmt, ranks = precision.of(module), tp // ep if linear.experts else tp
                for problem in (*_check_blocks(linear, fmt, ranks), *_check_pairs(linear, fmt, ranks)):
                    yield where + problem


def _check_blocks(linear: Linear, fmt: Format, tp: int) -> Iterator[str]:
    """Says if a linear's inputs, or its shards' inputs, are not whole blocks of one scale each."""
    block, names = fmt.block_size, ", ".join(part.source.rpartition(".")[2] for part in linear.parts)
    if block and linear.inputs % block:
        yield (
            f"format: {fmt.name!r} needs whole {block}-element blocks, {names} has {linear.inputs} "
            "input channels; choose a format without blocks"
        )
    # Column-parallel linears keep all inputs on every rank, so their blocks stay whole.
    elif block and linear.split == "row" and linear.inputs % (tp * block):
        yield (
            f"engine.tp: {tp} splits {names} ({linear.inputs} input channels) into shards that are not "
            f"whole {block}-element blocks; choose tp so that {linear.inputs} % (tp * {block}) == 0"
        )


def _check_pairs(linear: Linear, fmt: Format, tp: int) -> Iterator[str]:
    """Says if a linear's shards do not hold whole pairs of int4 output channels."""
    for part in linear.parts if fmt.weight == "int4" else ():
        # Fewer heads than ranks are repeated, not divided further: no rank gets less than one unit.
        rows = part.outputs // (min(tp, part.units) if linear.split == "column" else 1)
        if rows % 2:
            yield (
                f"engine.tp: {tp} gives each rank {rows} output channels of "
                f"{part.source.rpartition('.')[2]}; {fmt.name!r} packs channels in pairs, "
                "so choose tp so that the number is even"
            )
