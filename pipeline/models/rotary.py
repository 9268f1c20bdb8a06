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
    return one_of(config, {name: reading(config, name, given) for name, given in blocks(config).items()})


def blocks(config: Config) -> dict[str, Mapping[str, Any]]:
    """The blocks that are not empty, the one that transformers reads first; or an empty one."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in ("rope_scaling", "rope_parameters"):
        given = config.given.get(name)
        if given is not None and not isinstance(given, dict):
            config.refuse(f"{name} is {shortened(given)}; it must be null or an object")
        elif given:
            found[name] = given
    if not found:
        found["rope_parameters"] = {}
    return found


def one_of(config: Config, readings: Mapping[str, Rotary]) -> Rotary:
    """Returns the first of the readings; if there are two they must agree."""
    (_, first), *others = readings.items()
    for other, second in others:
        if second != first:
            told = " and ".join(f"{name} {shortened(config.given[name])}" for name in readings)
            config.refuse(
                f"{told} disagree; transformers reads the first alone: take {other} out, or the first"
            )
    return first


def reading(config: Config, name: str, given: Mapping[str, Any]) -> Rotary:
    """Reads one block by itself."""
    for key, value in given.items():
        if isinstance(value, dict):
            config.refuse(f"{name}.{key} is an object; {config.architecture} has one block for all layers")
    require_whole(config, name, given)
    return theta(config, name, given), scaling(config, name, given)


def theta(config: Config, name: str, given: Mapping[str, Any]) -> float:
    """Reads the base of a block: its own, or the field beside it, or that of the class."""
    return base(config, name, given, "rope_theta", config.known.theta)


def base(config: Config, name: str, given: Mapping[str, Any], beside: str, usual: float) -> float:
    """Reads the base of a block, or the field `beside` it; one that is not used must be a number too."""
    found = config.given.get(beside, usual)
    if "rope_theta" not in given:
        return number(config, beside, found)
    if found is not None:
        number(config, beside, found)
    if beside in config.given:
        require_equal(config, (beside, found), (f"{name}.rope_theta", given["rope_theta"]))
    return number(config, f"{name}.rope_theta", given["rope_theta"])


def require_equal(config: Config, one: tuple[str, Any], other: tuple[str, Any]) -> None:
    """Refuses two spellings of a field that disagree: transformers drops one of them without a word."""
    if one[1] is not None and other[1] is not None and one[1] != other[1]:
        told = " and ".join(f"{name} {shortened(value)}" for name, value in (one, other))
        config.refuse(f"{told} disagree; transformers uses one of them alone: take the wrong one out")


def kind(config: Config, name: str, given: Mapping[str, Any], alike: tuple[str, ...] = ()) -> str:
    """Reads the type of a block: `rope_type`, or where that is left out `type`; `alike` are names of one."""
    found = given.get("rope_type", given.get("type", "default"))
    if not (found in alike and given.get("type") in alike):
        require_equal(config, (f"{name}.rope_type", found), (f"{name}.type", given.get("type")))
    if isinstance(found, str):
        return found
    config.refuse(f"{name}.rope_type is {shortened(found)}; give it a value or leave it out")
    return "default"


def require_whole(config: Config, name: str, given: Mapping[str, Any]) -> None:
    """Refuses rotary embeddings over a part of each head."""
    place = f"{name}.partial_rotary_factor" if "partial_rotary_factor" in given else "partial_rotary_factor"
    beside = config.given.get("partial_rotary_factor")
    partial = given.get("partial_rotary_factor", beside)
    require_equal(config, ("partial_rotary_factor", beside), (place, partial))
    null = partial is None and "partial_rotary_factor" not in given  # which transformers takes for left out
    if not null and (type(partial) not in (int, float) or partial != 1):
        config.refuse(f"{place} {shortened(partial)} is not supported; supported: 1")


def scaling(config: Config, name: str, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads the scaling of a block: `rope_type` and the fields that transformers reads with it."""
    found = kind(config, name, given)
    if found == "default":
        return None
    if found not in NEEDED:
        known = ", ".join(NEEDED)
        config.refuse(f"{name}: rope_type {shortened(found)} is not supported; supported: default, {known}")
        return None
    missing = [key for key in NEEDED[found] if given.get(key) is None]
    if missing:
        config.refuse(f"{name}: rope_type {found!r} lacks {', '.join(missing)}; add them")
        return None
    optional = [key for key in OPTIONAL.get(found, ()) if given.get(key) is not None]
    numbers = {key: _checked(config, f"{name}.{key}", given[key]) for key in (*NEEDED[found], *optional)}
    if "truncate" in given and found == "yarn":
        numbers["truncate"] = given["truncate"]
        if type(given["truncate"]) is not bool:
            config.refuse(f"{name}.truncate is {shortened(given['truncate'])}; it must be true or false")
    if found in WITH_ORIGINAL:
        numbers[ORIGINAL] = _original(config, name, given)
    return {"rope_type": found, **numbers}


def _checked(config: Config, name: str, value: Any) -> Any:
    """The number as it stands, whole or not."""
    number(config, name, value)
    return value


def _original(config: Config, name: str, given: Mapping[str, Any]) -> int:
    silent = ORIGINAL not in given
    found = config.whole("max_position_embeddings") if silent else given[ORIGINAL]
    place = f"max_position_embeddings, which {name} starts from," if silent else f"{name}.{ORIGINAL}"
    require_equal(config, (ORIGINAL, config.given.get(ORIGINAL)), (place, found))
    if type(found) is int and 0 < found <= 1 << 31:
        return found
    config.refuse(f"{name}.{ORIGINAL} is {shortened(found)}; it must be a whole number from 1 to {1 << 31}")
    return 1
