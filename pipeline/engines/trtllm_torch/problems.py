"""What is wrong with LLM API options, key by key; pure."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.engines.trtllm_torch.llm_options import Option, Options, Table, versions_with

OWNED: Mapping[tuple[str, ...], str] = {
    ("tensor_parallel_size",): "engine.tp",
    ("pipeline_parallel_size",): "engine.pp",
    ("moe_expert_parallel_size",): "engine.ep",
    ("moe_tensor_parallel_size",): "engine.ep",
    ("max_batch_size",): "engine.max_batch_size",
    ("max_seq_len",): "engine.max_seq_len",
    ("kv_cache_config", "dtype"): "kv_cache",
}
"""Keys that follow from other fields of the recipe."""

OURS = (
    "model",
    "tokenizer",
    "skip_tokenizer_init",
    "revision",
    "tokenizer_revision",
    "backend",
    "build_config",
)
"""Keys that follow from what an engine is."""

OBJECTS = ("batched_logits_processor", "checkpoint_loader", "mpi_session", "decoding_config")
"""Keys that hold objects of Python."""

TYPES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (float, int), "str": (str,), "list": (list, tuple),
    "dict": (dict,), "any": (object,),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One key, and what is wrong with it."""

    path: tuple[str, ...]
    message: str
    value: Any


def problems(options: Mapping[str, Any], table: Table) -> list[Problem]:
    """Lists every key that the version does not take, and every value of the wrong kind."""
    return list(_mapping(options, table.options, (), table))


def _mapping(
    options: Mapping[str, Any], allowed: Options, path: tuple[str, ...], table: Table, config: str = ""
) -> Iterator[Problem]:
    for name, value in options.items():
        key_path = (*path, str(name))
        # Before the table is asked, which has these keys too.
        if key_path in OWNED:
            yield Problem(key_path, f"is set by the recipe; use {OWNED[key_path]}", value)
        elif not path and name in OURS:
            yield Problem(key_path, "is set by Enginery; leave it out", value)
        elif not path and name in OBJECTS:
            yield Problem(key_path, "holds an object of Python, which no file can; leave it out", value)
        elif name not in allowed:
            yield Problem(key_path, _unknown(str(name), allowed, table, config), value)
        # A null passes for any type: it means that the option is not passed.
        elif value is not None:
            yield from _value(value, allowed[name], key_path, table)


def _value(value: Any, option: Option, path: tuple[str, ...], table: Table) -> Iterator[Problem]:
    if option.type == "choice":
        if value not in option.choices:
            yield Problem(path, f"must be one of {', '.join(option.choices)}", value)
    elif option.type in ("config", "speculative") and not isinstance(value, Mapping):
        yield Problem(path, "must be a mapping", value)
    elif option.type == "config":
        yield from _mapping(value, table.configs[option.config], path, table, option.config)
    elif option.type == "speculative":
        yield from _speculative(value, path, table)
    elif not isinstance(value, TYPES[option.type]) or (
        isinstance(value, bool) and option.type in ("int", "float")  # True is an int in Python
    ):
        yield Problem(path, f"must be of type {option.type}", value)


def _speculative(value: Mapping[str, Any], path: tuple[str, ...], table: Table) -> Iterator[Problem]:
    kind = value.get("decoding_type")
    if not isinstance(kind, str) or kind not in table.speculative:
        names = ", ".join(table.speculative)
        yield Problem((*path, "decoding_type"), f"must be one of {names} in {table.version}", kind)
        return
    rest = {name: entry for name, entry in value.items() if name != "decoding_type"}
    yield from _mapping(rest, table.speculative[kind], path, table)


def _unknown(name: str, allowed: Options, table: Table, config: str) -> str:
    near = difflib.get_close_matches(name, allowed, n=1)
    # The key may be right, and the toolchain too old or too new for it.
    others = versions_with(name, config)
    return (
        f"is no key of TensorRT-LLM {table.version}"
        + (f", but of {', '.join(others)}" if others else "")
        + (f"; did you mean {near[0]!r}?" if near else "")
    )
