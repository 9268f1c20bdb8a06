"""Rotary positions of a `config.json`, as transformers 5.14 reads them; pure.

`rope_scaling`, the name of transformers 4, comes before `rope_parameters`; where the block does not say
`rope_theta`, the field of that name beside it does, then the class. Two blocks, or a block and a field beside
it, that say different things are refused: whoever wrote the second did not mean the first to be dropped.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.models.config_fields import Config, number
from pipeline.models.model_json import shortened

Rotary = tuple[float, dict[str, Any] | None]
"""Theta, and `rope_type` with its own fields where positions are scaled."""

NEEDED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
"""Supported rotary scalings and the fields each must have."""

OPTIONAL = {"yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")}

ORIGINAL = "original_max_position_embeddings"
WITH_ORIGINAL = ("llama3", "yarn")
"""Scalings that start from a context length; where the block has none it is `max_position_embeddings`."""


def rope(config: Config) -> Rotary:
    """Reads theta and scaling of all layers."""
    return one_of(config, {name: reading(config, name, block) for name, block in blocks(config).items()})


def blocks(config: Config) -> dict[str, Mapping[str, Any]]:
    """The blocks that are not empty, the one that transformers reads first; or an empty one."""
    rope_blocks: dict[str, Mapping[str, Any]] = {}
    # the order is that in which transformers looks; `one_of` takes the first
    for name in ("rope_scaling", "rope_parameters"):
        block = config.given.get(name)
        if block is not None and not isinstance(block, dict):
            config.refuse(f"{name} is {shortened(block)}; it must be null or an object")
        elif block:
            rope_blocks[name] = block
    if not rope_blocks:
        # one empty block, so that the field beside it, or the class, still gives the base
        rope_blocks["rope_parameters"] = {}
    return rope_blocks


def one_of(config: Config, readings: Mapping[str, Rotary]) -> Rotary:
    """Returns the first of the readings; if there are two they must agree."""
    (_, first), *others = readings.items()
    for other, second in others:
        # readings are compared, not blocks: two spellings of one meaning agree
        if second != first:
            listing = " and ".join(f"{name} {shortened(config.given[name])}" for name in readings)
            config.refuse(
                f"{listing} disagree; transformers reads the first alone: take {other} out, or the first"
            )
    return first


def reading(config: Config, name: str, block: Mapping[str, Any]) -> Rotary:
    """Reads one block by itself."""
    for key, value in block.items():
        if isinstance(value, dict):
            config.refuse(f"{name}.{key} is an object; {config.architecture} has one block for all layers")
    require_whole(config, name, block)
    return theta(config, name, block), scaling(config, name, block)


def theta(config: Config, name: str, block: Mapping[str, Any]) -> float:
    """Reads the base of a block: its own, or the field beside it, or that of the class."""
    return base(config, name, block, "rope_theta", config.known.theta)


def base(config: Config, name: str, block: Mapping[str, Any], beside: str, usual: float) -> float:
    """Reads the base of a block, or the field `beside` it; one that is not used must be a number too."""
    stated_base = config.given.get(beside, usual)
    if "rope_theta" not in block:
        return number(config, beside, stated_base)
    if stated_base is not None:
        number(config, beside, stated_base)
    if beside in config.given:
        require_equal(config, (beside, stated_base), (f"{name}.rope_theta", block["rope_theta"]))
    return number(config, f"{name}.rope_theta", block["rope_theta"])


def require_equal(config: Config, first: tuple[str, Any], other: tuple[str, Any]) -> None:
    """Refuses two spellings of a field that disagree: transformers drops one of them without a word."""
    if first[1] is not None and other[1] is not None and first[1] != other[1]:
        listing = " and ".join(f"{name} {shortened(value)}" for name, value in (first, other))
        config.refuse(f"{listing} disagree; transformers uses one of them alone: take the wrong one out")


def kind(config: Config, name: str, block: Mapping[str, Any], alike: tuple[str, ...] = ()) -> str:
    """Reads the type of a block: `rope_type`, or where that is left out `type`; `alike` are names of one."""
    # a `rope_type` of null is no missing one: it is refused below
    rope_type = block.get("rope_type", block.get("type", "default"))
    if not (rope_type in alike and block.get("type") in alike):
        require_equal(config, (f"{name}.rope_type", rope_type), (f"{name}.type", block.get("type")))
    if isinstance(rope_type, str):
        return rope_type
    config.refuse(f"{name}.rope_type is {shortened(rope_type)}; give it a value or leave it out")
    return "default"


def require_whole(config: Config, name: str, block: Mapping[str, Any]) -> None:
    """Refuses rotary embeddings over a part of each head."""
    place = f"{name}.partial_rotary_factor" if "partial_rotary_factor" in block else "partial_rotary_factor"
    beside = config.given.get("partial_rotary_factor")
    partial = block.get("partial_rotary_factor", beside)
    require_equal(config, ("partial_rotary_factor", beside), (place, partial))
    # transformers treats this null as a missing field.
    null = partial is None and "partial_rotary_factor" not in block  # which transformers takes for left out
    if not null and (type(partial) not in (int, float) or partial != 1):
        config.refuse(f"{place} {shortened(partial)} is not supported; supported: 1")


def scaling(config: Config, name: str, block: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads the scaling of a block: `rope_type` and the fields that transformers reads with it."""
    rope_type = kind(config, name, block)
    if rope_type == "default":
        return None
    if rope_type not in NEEDED:
        supported = ", ".join(NEEDED)
        config.refuse(
            f"{name}: rope_type {shortened(rope_type)} is not supported; supported: default, {supported}"
        )
        return None
    # null counts as missing: the scaling cannot be computed from it
    missing = [key for key in NEEDED[rope_type] if block.get(key) is None]
    if missing:
        config.refuse(f"{name}: rope_type {rope_type!r} lacks {', '.join(missing)}; add them")
        return None
    optional = [key for key in OPTIONAL.get(rope_type, ()) if block.get(key) is not None]
    numbers = {
        key: _read_number(config, f"{name}.{key}", block[key]) for key in (*NEEDED[rope_type], *optional)
    }
    if "truncate" in block and rope_type == "yarn":
        numbers["truncate"] = block["truncate"]
        if type(block["truncate"]) is not bool:
            config.refuse(f"{name}.truncate is {shortened(block['truncate'])}; it must be true or false")
    if rope_type in WITH_ORIGINAL:
        numbers[ORIGINAL] = _read_original_length(config, name, block)
    return {"rope_type": rope_type, **numbers}


def _read_number(config: Config, name: str, value: Any) -> Any:
    """The number as it stands, whole or not."""
    number(config, name, value)
    # not the float: whoever writes the field again must write 8, not 8.0
    return value


def _read_original_length(config: Config, name: str, block: Mapping[str, Any]) -> int:
    silent = ORIGINAL not in block
    original = config.whole("max_position_embeddings") if silent else block[ORIGINAL]
    place = f"max_position_embeddings, which {name} starts from," if silent else f"{name}.{ORIGINAL}"
    require_equal(config, (ORIGINAL, config.given.get(ORIGINAL)), (place, original))
    if type(original) is int and 0 < original <= 1 << 31:
        return original
    config.refuse(
        f"{name}.{ORIGINAL} is {shortened(original)}; it must be a whole number from 1 to {1 << 31}"
    )
    return 1
