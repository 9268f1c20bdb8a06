"""`engine.options` of backend `tensorrt`: a model made from the option table of the toolchain's version."""

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    StrictBool,
    StrictInt,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from pipeline.engines.tensorrt.capabilities import SNAPSHOTS, Capabilities, Option, snapshot
from pipeline.engines.tensorrt.descriptions import DESCRIPTIONS, ELSEWHERE, RECIPE
from recipes.frozen import Frozen, Several

AUTO = {
    "max_input_len", "max_num_tokens", "opt_num_tokens", "logits_dtype", "builder_opt",
    "builder_force_num_profiles", "multiple_profiles",
}  # fmt: skip
"""Options that Enginery chooses where they are `auto`."""

ALWAYS = {"kv_cache_type": "paged", "gather_context_logits": True}
"""Defaults that are ours."""

POWERS = {"tokens_per_block"}
"""Integers that are powers of two."""

LEAST = {"max_prompt_embedding_table_size": 0, "builder_opt": 0}
"""Smallest values of integers; 1 for all others."""

MOST = {"max_beam_width": 256}
"""Largest values; beams: release notes of TensorRT-LLM 0.15."""


class Options(Frozen):
    """What only this backend understands."""

    table: ClassVar[Capabilities]

    @model_validator(mode="wrap")
    @classmethod
    def _names_are_explained(cls, value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        """Says of an option that there is not, which versions have it or what is meant."""
        try:
            return handler(value)
        except ValidationError as exc:
            raise ValidationError.from_exception_data(
                cls.__name__, [line for error in exc.errors() for line in _explained(error, cls.table)]
            ) from None


def options_model(table: Capabilities) -> type[Options]:
    """The model of `engine.options` for one version: frozen, closed, every field documented."""
    # By names, because a table holds a mapping and cannot be a cache's key.
    return _model(table.snapshot, table.version)


@cache
def _model(name: str, version: str) -> type[Options]:
    table = snapshot(name).of(version)
    fields: dict[str, Any] = {
        option.name: _field(option) for option in table.options.values() if _is_open(option)
    }
    model = create_model("Options", __base__=Options, __doc__=f"Options of trtllm-build {version}.", **fields)
    model.table = table
    return model


def _is_open(option: Option) -> bool:
    """Whether recipes set the option."""
    return option.name not in ELSEWHERE and not option.deprecated


def _field(option: Option) -> tuple[Any, Any]:
    """Type and default of an option, as pydantic takes them."""
    kind: Any = _type(option)
    default = default_of(option)
    if option.name in AUTO:
        kind = Literal["auto"] | kind
    # Defaults are the command's own and may be None, which a recipe cannot write.
    return kind, Field(default=default, description=DESCRIPTIONS[option.name], validate_default=False)


def default_of(option: Option) -> Any:
    """What an option is when the recipe does not give it; where the command leaves it open, we do not."""
    if option.name in AUTO:
        return "auto"
    if option.name in ALWAYS:
        return ALWAYS[option.name]
    if option.many:
        return ()
    if option.default is None and "disable" in option.choices:
        return "disable"
    return option.default


def _type(option: Option) -> Any:
    """The Python type of an option's value."""
    if option.type == "flag":
        return StrictBool
    if option.type == "switch":
        return Annotated[Literal["enable", "disable"], BeforeValidator(_word)]
    if option.type == "int" and not option.choices:
        return _integer(option)
    # The choices are known only now, so no annotation can name them.
    choice: Any = Literal.__getitem__(option.choices)
    if option.many:
        return Several[choice]
    return Annotated[choice, BeforeValidator(_off)] if "disable" in option.choices else choice


def _integer(option: Option) -> Any:
    least, most = LEAST.get(option.name, 1), MOST.get(option.name)
    bounded = Annotated[StrictInt, Field(ge=least, le=most)]
    return Annotated[bounded, AfterValidator(_power_of_two)] if option.name in POWERS else bounded


def _word(value: Any) -> Any:
    """Reads YAML's true and false as the words that the command takes."""
    return {True: "enable", False: "disable"}[value] if isinstance(value, bool) else value


def _off(value: Any) -> Any:
    """Reads YAML's false as the word for none."""
    return "disable" if value is False else value


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError(f"{value} is no power of two")
    return value


def _explained(error: ErrorDetails, table: Capabilities) -> Iterator[InitErrorDetails]:
    """A pydantic error in our own words; of a choice between `auto` and more, one instead of two."""
    loc, why = error["loc"], error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        why = unknown(str(loc[0]), table)
    elif loc and loc[0] in AUTO and len(loc) > 1:
        # A union reports both branches: the other one's error gets `auto` added.
        if loc[1] == "literal['auto']":
            return
        loc, why = loc[:1], f"{why}, or 'auto'"
    yield InitErrorDetails(
        type=PydanticCustomError("option", "{why}", {"why": why}), loc=loc, input=error["input"]
    )


def unknown(name: str, table: Capabilities) -> str:
    """Why a name is no option of this version, and what to do about it."""
    hint = ELSEWHERE.get(name) or RECIPE.get(name)
    if hint is not None:
        return f"is not an option here: {hint}"
    # Known and not open to recipes: only deprecated ones are left here.
    if name in table.options:
        return f"is deprecated in TensorRT-LLM {table.version}; give kv_cache_type"
    having = [release for release in SNAPSHOTS if name in snapshot(release).options]
    if not having:
        names = [option.name for option in table.options.values() if _is_open(option)]
        near = difflib.get_close_matches(name, names, n=1)
        return f"is no option of trtllm-build{f'; did you mean {near[0]!r}?' if near else ''}"
    # Snapshots stand by age: one that ends before this table was removed, else it is to come.
    if SNAPSHOTS.index(having[-1]) < SNAPSHOTS.index(table.snapshot):
        removed_in = snapshot(having[-1]).options[name].removed
        return f"was removed in TensorRT-LLM {removed_in}; this toolchain is {table.version}, {_span(having)}"
    return f"is not in TensorRT-LLM {table.version}; {_span(having)}"


def _span(names: list[str]) -> str:
    return f"{names[0]} to {names[-1]} have it" if len(names) > 1 else f"only {names[0]} has it"
