"""Contents of rows: text, chat messages, or a prompt and its completion; standard library only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from calibration.data import chats
from calibration.data.chats import Chat, chat
from calibration.data.report_values import ReadAs
from calibration.data.values import parsed, text

Fields = Mapping[str, Any]
"""A row: column -> value."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt and its completion."""

    prompt: str
    completion: str


Content = str | Chat | Exchange

KINDS: tuple[tuple[str, dict[str, str], dict[str, str]], ...] = (
    # kind             columns that must be there                            columns that may be there
    ("text",          {"text": "text"},                                     {}),
    ("messages",      {"messages": "messages"},                             {"tools": "tools"}),
    ("conversations", {"messages": "conversations"},                        {"tools": "tools"}),
    ("completion",    {"prompt": "prompt", "completion": "completion"},     {}),
    ("response",      {"prompt": "prompt", "completion": "response"},       {}),
    ("instruction",   {"prompt": "instruction", "completion": "output"},    {"input": "input"}),
)  # fmt: skip
"""Kinds of rows by their usual column names: required and optional content -> column."""

OPTIONAL = ("tools", "input")
"""Content that may be missing in a row."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns that a source's rows are read from."""

    kind: str
    """A kind of KINDS, or `named` where the recipe names the columns."""
    columns: Mapping[str, str]
    """Content (`text`, `messages`, `tools`, `prompt`, `input`, `completion`) -> column."""

    def as_dict(self) -> ReadAs:
        """As JSON, for reports."""
        return {"kind": self.kind, "columns": dict(self.columns)}


def choose(roles: Mapping[str, str], names: Iterable[str]) -> Shape:
    """The columns to read: those that the recipe names, else those with usual names.

    ValueError where they are missing or ambiguous.
    """
    present = list(names)
    if roles:
        absent = [name for role, name in roles.items() if name not in present and role not in OPTIONAL]
        if absent:
            raise ValueError(f"no field {_names(absent)}; there is {_names(present)}; name one of these")
        return Shape("named", {role: name for role, name in roles.items() if name in present})
    fitting = [row for row in KINDS if set(row[1].values()) <= set(present)]
    if not fitting:
        kinds = ", ".join("+".join(f"'{name}'" for name in row[1].values()) for row in KINDS)
        raise ValueError(
            f"no field of {kinds}; there is {_names(present)}; name one in 'column' or 'columns'"
        )
    # A silent choice could calibrate on the wrong column.
    if len(fitting) > 1:
        first, second = (_names(row[1].values()) for row in fitting[:2])
        raise ValueError(f"both {first} and {second} are there; choose with 'column' or 'columns'")
    kind, columns, more = fitting[0]
    return Shape(kind, columns | {role: name for role, name in more.items() if name in present})


def widen(shape: Shape, roles: Mapping[str, str], row: Fields) -> Shape:
    """The shape with the optional columns of this row that earlier rows did not have."""
    candidates = next((more for kind, _, more in KINDS if kind == shape.kind), roles)
    added = {
        role: name
        for role, name in candidates.items()
        if role in OPTIONAL and role not in shape.columns and name in row
    }
    # The same object where nothing is new: this runs for every row.
    return replace(shape, columns={**shape.columns, **added}) if added else shape


def content(shape: Shape, row: Fields) -> Content:
    """The content of a row; ValueError for an invalid one."""
    for role, name in shape.columns.items():
        if name not in row and role not in OPTIONAL:
            raise ValueError(f"no field {name!r}, which the source's rows have; the row has {_names(row)}")
    values = {role: row.get(name) for role, name in shape.columns.items()}
    labels = {role: f"field {name!r}" for role, name in shape.columns.items()}
    if "messages" in values:
        messages = parsed(labels["messages"], values["messages"], "a list of messages")
        return chat(labels["messages"], messages, chats.tools(labels.get("tools", ""), values.get("tools")))
    if "prompt" in values:
        return _exchange(labels, values)
    # `column` in a recipe may name messages: a list is a chat.
    if isinstance(values["text"], list):
        return chat(labels["text"], values["text"])
    return text(labels["text"], values["text"])


def words(content: Content) -> str:
    """The text of a row without markup, by which rows are compared."""
    if isinstance(content, str):
        return content
    if isinstance(content, Exchange):
        return f"{content.prompt}\n{content.completion}"
    return chats.words(content.messages)


def _exchange(labels: Mapping[str, str], values: Mapping[str, Any]) -> Content:
    prompt, completion = values["prompt"], values["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return chats.joined(chat(labels["prompt"], prompt), chat(labels["completion"], completion))
    parts = [text(labels["prompt"], prompt)]
    if values.get("input"):
        parts.append(text(labels["input"], values["input"]))
    return Exchange("\n\n".join(parts), text(labels["completion"], completion))


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "no field"
