"""YAML files whose every mistake is told with line and column."""

import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from recipes.errors import RecipeError

Loc = tuple[int | str, ...]
M = TypeVar("M", bound=BaseModel)

UNION_TAG = re.compile(r"int|str|constrained-int|MixedFormat|Skip|\[key\]|(?:[a-z]+[a-z-]*)\[[^\]].*\]")
"""What pydantic adds to a location that is no key of the file, e.g. `literal['all']`; a pattern of module
names such as `model.layers.[01].*` is one."""

SHOWN = 60
"""Characters of a value that a message shows."""

DEEP = "holds lists or mappings too deep in one another, or in themselves; write it flat"

SHALLOW = ("too_short", "literal_error", "string_type")
"""Errors that say nothing once something inside the value is known to be wrong."""


class Loader(yaml.SafeLoader):
    """YAML without dates: what looks like one stays text, for the field's own rule to judge."""

    yaml_implicit_resolvers = {  # noqa: RUF012 as PyYAML declares it
        first: [(tag, form) for tag, form in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 PyYAML's
        """The node's value; a ConstructorError with its place where the text is none of its type."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # which of a number of thousands of digits no message or file could hold
        except (ValueError, LookupError, AttributeError, ArithmeticError):
            kind = node.tag.rpartition(":")[2]
            told = f"{shortened(str(node.value))!r} is no {kind} that can be read; quote it if it is text"
            raise yaml.constructor.ConstructorError(None, None, told, node.start_mark) from None
        return value


def shortened(text: str) -> str:
    """The text for a message: its beginning, where it is long."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def compose(file: Path, what: str, cure: str) -> yaml.Node:
    """The file's syntax tree with places; `what` it should hold and, where there is none, the `cure`."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(file, [f"no such file; {cure}"]) from None
    except IsADirectoryError:
        raise RecipeError(file, [f"is a directory; give the file of {what} in it"]) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise RecipeError(file, [f"cannot be read as UTF-8 text: {exc}"]) from None
    try:
        root = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        at = f"{mark.line + 1}:{mark.column + 1}: " if mark else ""
        raise RecipeError(file, [f"{at}not YAML: {exc.problem or exc.context}"]) from None
    except yaml.YAMLError as exc:
        raise RecipeError(file, [f"not YAML: {exc}"]) from None
    except RecursionError:
        raise RecipeError(file, [DEEP]) from None
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(file, [f"1:1: {what} is a mapping of keys to values; start with `version: 1`"])
    return root


def construct(file: Path, root: yaml.Node) -> dict[str, Any]:
    """The document as values; a key that stands twice is refused, and text that is not Unicode."""
    try:
        repeated = [
            f"{node.start_mark.line + 1}:{node.start_mark.column + 1}: "
            f"key {node.value!r} stands twice; keep one"
            for node in _repeated_keys(root)
        ]
        problems = [*repeated, *_halves(root)]
    except RecursionError:
        problems = [DEEP]
    if problems:
        raise RecipeError(file, problems)
    try:
        return cast("dict[str, Any]", Loader("").construct_document(root))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        at = f"{mark.line + 1}:{mark.column + 1}: " if mark else ""
        raise RecipeError(file, [f"{at}{exc.problem}"]) from None


def _repeated_keys(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key.value, str):  # others cannot be keys, says construct
                if key.value in seen:
                    yield key
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)


def _halves(node: yaml.Node) -> Iterator[str]:
    """Scalars with half a surrogate pair, which an escape can write and no file can hold."""
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= letter <= "\udfff" for letter in node.value):
            mark = node.start_mark
            yield f"{mark.line + 1}:{mark.column + 1}: half a surrogate pair; text must be valid Unicode"
        return
    for item in node.value:
        for part in item if isinstance(item, tuple) else (item,):
            yield from _halves(part)


def validate(
    model: type[M], file: Path, root: yaml.Node, document: Mapping[str, Any], *, more: Sequence[str] = ()
) -> M:
    """The document as `model`, or RecipeError with every problem; `more` keys are allowed at the top."""
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
    told = _Told(model, root, tuple(more))
    raise RecipeError(file, [told.problem(error) for error in _distinct(errors)])


@dataclass(frozen=True, slots=True)
class _Told:
    """Words for what a model says against a document."""

    model: type[BaseModel]
    root: yaml.Node
    more: tuple[str, ...]

    def problem(self, error: ErrorDetails) -> str:
        """One line: place in the file, dotted key, what is wrong, what is allowed."""
        loc = _location(error)
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = self._unknown_key(loc)
        elif error["type"] == "missing":
            message = "is required"
        elif error["type"] == "literal_error":
            message = _unknown_value(error)
        elif error["type"] == "too_short":
            message = "is empty; give at least one entry"
        elif error["type"] == "string_pattern_mismatch" and loc[-1:] == ("revision",):
            message = f"{_given(error)} is not a full commit hash (40 hex digits); branches and tags move"
        elif error["type"] != "value_error":
            message = f"{_lower(message).replace('dictionary', 'mapping')}, found {_given(error)}"
        dotted = ".".join(str(part) for part in loc)
        return (
            f"{place(self.root, loc)}{dotted}: {message}" if dotted else f"{place(self.root, loc)}{message}"
        )

    def _unknown_key(self, loc: Loc) -> str:
        allowed = self._fields(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown key{hint} (allowed: {', '.join(allowed)})"

    def _fields(self, loc: Loc) -> list[str]:
        """Names of the fields of the model at `loc`, and of `more` at the top."""
        model: type[BaseModel] = self.model
        for part in loc:
            if isinstance(part, str) and part in model.model_fields:
                model = _model_in(model.model_fields[part].annotation) or model
        names = [field.alias or name for name, field in model.model_fields.items()]
        return [*names, *self.more] if model is self.model else names


def _distinct(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """One error per place: a union reports each member it tried, a container its broken items again."""
    kept: dict[Loc, ErrorDetails] = {}
    for error in errors:
        kept.setdefault(_location(error), error)
    parents = {loc[:cut] for loc in kept for cut in range(len(loc))}
    return [e for loc, e in kept.items() if not (e["type"] in SHALLOW and loc in parents)]


def _location(error: ErrorDetails) -> Loc:
    return tuple(part for part in error["loc"] if not _is_union_tag(part))


def _given(error: ErrorDetails) -> str:
    return shortened(repr(error["input"]))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _is_union_tag(part: int | str) -> bool:
    """Whether pydantic put the name of a union's member, not a key, into the location."""
    return isinstance(part, str) and UNION_TAG.fullmatch(part) is not None


def _unknown_value(error: ErrorDetails) -> str:
    allowed = [
        part.strip("'\"")
        for part in error.get("ctx", {}).get("expected", "").replace(" or ", ", ").split(", ")
    ]
    near = difflib.get_close_matches(str(error["input"]), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{_given(error)} is not allowed{hint} (allowed: {', '.join(allowed)})"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def place(root: yaml.Node, loc: Loc) -> str:
    """`line:column: ` of the deepest part of `loc` that stands in the file."""
    node, mark = root, root.start_mark
    for part in loc:
        step = _child(node, part)
        if step is None:
            break
        node, mark = step
    return f"{mark.line + 1}:{mark.column + 1}: "


def _child(node: yaml.Node, part: int | str) -> tuple[yaml.Node, yaml.Mark] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark
    return None
