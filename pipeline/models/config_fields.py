"""Fields of a `config.json` as its class in transformers 5.14 reads them, checked; pure.

A field that is left out has the default of the class; null is a value, which few fields take. What
transformers takes and no part of this program can follow is refused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import SourceError
from pipeline.models.config_types import mistyped
from pipeline.models.model_json import shortened

DTYPES = ("bfloat16", "float16", "float32")

WHOLE, WINDOWED = "full_attention", "sliding_attention"
"""Words of `layer_types`."""

MOST = {
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "intermediate_size": 1 << 24,
    "moe_intermediate_size": 1 << 24,
    "shared_expert_intermediate_size": 1 << 24,
    "vocab_size": 1 << 24,
    "num_experts": 1 << 12,
    "num_local_experts": 1 << 12,
    "num_experts_per_tok": 1 << 12,
}
"""Largest size that is read, several times that of any model."""

MOST_POSITIONS = 1 << 31
"""Largest of every other whole number: positions, windows, layers counted from the first."""


@dataclass(frozen=True, slots=True)
class ConfigClass:
    """A configuration class of transformers, as far as it is read."""

    model_type: str
    defaults: Mapping[str, Any]
    """Field that may be left out -> its value then. Sizes that shape tensors may not, though transformers has
    defaults: a model guessed from them would be another one."""
    null: tuple[str, ...] = ()
    """Fields that may be null."""
    equal_heads: bool = False
    """`hidden_size` must be a multiple of the heads even where `head_dim` says their size."""
    theta: float = 1e4
    """Rotary base where nothing says one."""


@dataclass(frozen=True, slots=True)
class Config:
    """A `config.json` being read; what is wrong with it is gathered, so that it is said at once."""

    given: Mapping[str, Any]
    architecture: str
    known: ConfigClass
    problems: list[str] = field(default_factory=list)

    def refuse(self, problem: str) -> None:
        """Adds a problem."""
        self.problems.append(problem)

    def settle(self) -> None:
        """Raises a SourceError with every problem so far; what follows can rely on each value alone.

        A field that no reading refused must also have a type that transformers takes.
        """
        # Every problem begins with its field: a field gets one message, the specific one before the type's.
        reported = {problem.partition(" ")[0] for problem in self.problems}
        wrong = mistyped(self.known.model_type, self.given)
        problems = [*self.problems, *(problem for name, problem in wrong.items() if name not in reported)]
        if problems:
            raise SourceError("\n".join(f"config.json: {problem}" for problem in dict.fromkeys(problems)))

    def value(self, key: str) -> Any:
        """Returns a field, or its default; null where it may not be is a problem, and gives the default."""
        default = self.known.defaults.get(key)
        value = self.given.get(key, default)
        if value is None and key in self.given and key not in self.known.null:
            self.refuse(f"{key} is null; give it a value or leave it out")
            return default
        return value

    def whole(self, key: str, least: int = 1) -> int:
        """Returns a whole number within its bounds; what is left out and has no default is a problem."""
        return self._within(key, self.given.get(key, self.known.defaults.get(key)), least)

    def _within(self, key: str, value: Any, least: int) -> int:
        most = MOST.get(key, MOST_POSITIONS)
        # `type is int` excludes JSON true and false, which are ints to isinstance.
        if type(value) is int and least <= value <= most:
            return value
        stated_value = shortened(value) if key in self.given else "missing"
        self.refuse(f"{key} is {stated_value}; it must be a whole number from {least} to {most}")
        return least

    def maybe_whole(self, key: str) -> int | None:
        """Returns a whole number, or None for a null where it may be, or where null is the default."""
        value = self.value(key)
        return None if value is None else self._within(key, value, 1)

    def switch(self, key: str) -> bool:
        """Returns true or false."""
        value = self.value(key)
        if type(value) is not bool:
            self.refuse(f"{key} is {shortened(value)}; it must be true or false")
        return value is True

    def real(self, key: str, most: float) -> float:
        """Returns a number above 0; transformers takes no whole number for it."""
        value = self.value(key)
        # NaN is a float, and fails both comparisons
        if type(value) is not float or not 0 < value <= most:
            self.refuse(
                f"{key} is {shortened(value)}; it must be above 0 and at most {most:g}, "
                "with a point or an exponent"
            )
            return 1.0
        return value

    def require(self, key: str, *allowed: Any) -> None:
        """Refuses a switch that changes the computation in a way no part of the program follows."""
        value = self.value(key)
        # 0 == False in Python, and JSON's 0 is not false
        if not any(value == each and type(value) is type(each) for each in allowed):
            self.refuse(
                f"{key} {shortened(value)} is not supported for {self.architecture}; "
                f"supported: {', '.join(map(shortened, allowed))}"
            )


def opened(document: Mapping[str, Any], config_class: ConfigClass) -> Config:
    """Begins to read a `config.json` of a known architecture; the `model_type` of another is a problem."""
    config = Config(document, document["architectures"][0], config_class)
    model_type = document.get("model_type")
    if model_type != config_class.model_type:
        stated_type = shortened(model_type) if "model_type" in document else "missing"
        config.refuse(
            f"model_type is {stated_type}; transformers chooses the class by it, which for "
            f"{config.architecture} is {config_class.model_type!r}"
        )
    if document.get("per_layer_config") is not None:
        config.refuse("per_layer_config is not supported; supported: the same in every layer")
    return config


def decoder(config: Config, inner: str = "intermediate_size") -> dict[str, Any]:
    """Reads what every family has, as fields of a ModelShape; `inner` names the size of an MLP or expert."""
    hidden, heads = config.whole("hidden_size"), config.whole("num_attention_heads")
    sizes: dict[str, Any] = {
        "architecture": config.architecture,
        "model_type": config.known.model_type,
        "dtype": dtype(config),
        "hidden_size": hidden,
        "num_layers": config.whole("num_hidden_layers"),
        "num_heads": heads,
        # null means one key head per query head
        "num_kv_heads": config.maybe_whole("num_key_value_heads") or heads,
        # max: with a wrong size the reading must go on, to report every problem
        "head_dim": config.maybe_whole("head_dim") or max(hidden // heads, 1),
        "intermediate_size": config.whole(inner),
        "vocab_size": config.whole("vocab_size"),
        "max_position_embeddings": config.whole("max_position_embeddings"),
        "rms_norm_eps": config.real("rms_norm_eps", 1.0),
        "tie_word_embeddings": config.switch("tie_word_embeddings"),
    }
    # the checks below divide by these numbers, and rely on each being in its bounds
    config.settle()
    _check_heads(config, sizes)
    _check_padding(config, sizes["vocab_size"])
    if "layer_types" not in config.known.defaults and config.given.get("layer_types") is not None:
        layer_types(config, [WHOLE] * sizes["num_layers"], (WHOLE, WINDOWED))  # checked, and not used
    return sizes


def _check_padding(config: Config, rows: int) -> None:
    """Refuses a padding token that has no row in the embedding; negative ones count from its end."""
    pad_id = config.given.get("pad_token_id", config.known.defaults.get("pad_token_id"))
    if pad_id is not None and not -rows <= pad_id < rows:
        problem = f"is {pad_id}" if "pad_token_id" in config.given else f"is missing, which means {pad_id},"
        config.refuse(
            f"pad_token_id {problem} and vocab_size is {rows}; it must be null or from {-rows} to "
            f"{rows - 1}, or the embedding must have a row for it"
        )


def _check_heads(config: Config, sizes: Mapping[str, Any]) -> None:
    hidden, heads, kv_heads = (sizes[name] for name in ("hidden_size", "num_heads", "num_kv_heads"))
    if heads % kv_heads:
        config.refuse(
            f"num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}; "
            "every key head must serve the same number of query heads"
        )
    sized = config.value("head_dim") is not None
    # with head_dim given, the heads need not add up to hidden_size
    if hidden % heads and (config.known.equal_heads or not sized):
        advice = "transformers refuses it" if config.known.equal_heads else "set head_dim"
        config.refuse(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}; {advice}")


def dtype(config: Config) -> str:
    """Reads the type of the unquantized weights: `dtype`, or where that is null `torch_dtype`."""
    dtype = config.given.get("dtype")
    dtype = config.given.get("torch_dtype") if dtype is None else dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    stated_dtype = shortened(dtype) if {"dtype", "torch_dtype"} & config.given.keys() else "missing"
    config.refuse(f"dtype is {stated_dtype}; it must be one of {', '.join(DTYPES)}")
    return DTYPES[0]


def number(config: Config, name: str, value: Any) -> float:
    """Returns a finite number above 0, whole or not; `name` says where it stands."""
    # `type`, since a bool is an int to isinstance; NaN fails the comparison below
    if type(value) in (int, float):
        try:
            number = float(value)
        # a whole number of JSON may have more digits than a float can hold
        except OverflowError:
            number = math.inf
        if 0 < number < math.inf:
            return number
    config.refuse(f"{name} is {shortened(value)}; it must be a finite number above 0")
    return 1.0


def layer_types(config: Config, usual: list[str], kinds: tuple[str, ...]) -> list[str]:
    """Reads the kind of each layer; `usual` where nothing says it."""
    layer_types = config.value("layer_types")
    if layer_types is None:
        return usual
    if (
        isinstance(layer_types, list)
        and len(layer_types) == len(usual)
        and all(each in kinds for each in layer_types)
    ):
        return layer_types
    names = (
        sorted({shortened(each) for each in layer_types})
        if isinstance(layer_types, list)
        else [shortened(layer_types)]
    )
    count = (
        f"{len(layer_types)} layers of kinds {', '.join(names[:4])}"
        if isinstance(layer_types, list)
        else names[0]
    )
    config.refuse(f"layer_types names {count}; it must name {len(usual)}, each {' or '.join(kinds)}")
    return usual
