"""Reads YAML files into models; every problem has its line and column."""

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from recipes import yaml_text
from recipes.errors import SHOWN as SHOWN_PROBLEMS
from recipes.errors import RecipeError
from recipes.frozen import PATTERN_WORDS
from recipes.regular import FileRefused, is_directory, read_text, shortened

Loc = tuple[int | str, ...]
KINDS = {
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}
"""Type of a pydantic error whose message uses Python's terms -> message in terms of YAML."""

M = TypeVar("M", bound=BaseModel)

SHALLOW = ("too_short", "literal_error", "string_type")
"""Errors that are redundant if there is an error inside the value."""


def compose(file: Path, subject: str, remedy: str) -> yaml.Node:
    """The file's syntax tree; errors name its expected content `subject`, for a missing file the `remedy`."""
    try:
        text = read_text(file)
    except FileRefused as exc:
        problem = f"is a directory; give the file of {subject} in it" if is_directory(file) else exc.why
        raise RecipeError(file, [f"{problem}; {remedy}" if problem == "no such file" else problem]) from None
    try:
        root = yaml_text.compose(text)
    except yaml.YAMLError as exc:
        raise RecipeError(file, [yaml_text.format_error(exc)]) from None
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(file, [f"1:1: {subject} is a mapping of keys to values; start with `version: 1`"])
    return root


def construct(file: Path, root: yaml.Node) -> dict[str, Any]:
    """The document as values; RecipeError for duplicate keys and for text that is not valid Unicode."""
    # On the tree: in the values, a repeated key would have replaced the first one.
    problems = [*_repeated_keys(root), *_halves(root)]
    if problems:
        raise RecipeError(file, problems)
    try:
        return cast("dict[str, Any]", yaml_text.value_of(root))
    except yaml.YAMLError as exc:
        raise RecipeError(file, [yaml_text.format_error(exc)]) from None


def _repeated_keys(node: yaml.Node) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key.value, str):  # `construct` refuses other keys
                if key.value in seen:
                    yield f"{_at(key.start_mark)}key {shortened(key.value)!r} is duplicate; keep one"
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)


def _halves(node: yaml.Node) -> Iterator[str]:
    """Problems of scalars with half a surrogate pair, which an escape can express but no file can store."""
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= letter <= "\udfff" for letter in node.value):
            yield f"{_at(node.start_mark)}half a surrogate pair; text must be valid Unicode"
        return
    for item in node.value:
        for part in item if isinstance(item, tuple) else (item,):
            yield from _halves(part)


def _at(mark: yaml.Mark) -> str:
    return f"{mark.line + 1}:{mark.column + 1}: "


def validate(
    model: type[M], file: Path, root: yaml.Node, document: Mapping[str, Any], *, more: Sequence[str] = ()
) -> M:
    """The document as `model`; RecipeError with every problem. Keys in `more` are allowed at the top."""
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
    problems_of = _ErrorFormatter(model, root, document, tuple(more))
    distinct = problems_of.distinct(errors)
    problems = [problems_of.problem(loc, error) for loc, error in distinct[:SHOWN_PROBLEMS]]
    raise RecipeError(file, problems, more=len(distinct) - len(problems))


@dataclass(frozen=True, slots=True)
class _ErrorFormatter:
    """Formats the errors of a model about a document."""

    model: type[BaseModel]
    root: yaml.Node
    document: Mapping[str, Any]
    more: tuple[str, ...]

    def distinct(self, errors: Sequence[ErrorDetails]) -> list[tuple[Loc, ErrorDetails]]:
        """One error per place: a union reports one per member, a container repeats those of its items."""
        error_at: dict[Loc, ErrorDetails] = {}
        for error in errors:
            # The first error of a place stays; the union's other members only repeat it.
            error_at.setdefault(_location(error, self.document), error)
        parents = {loc[:cut] for loc in error_at for cut in range(len(loc))}
        return [
            (loc, error)
            for loc, error in error_at.items()
            if not (error["type"] in SHALLOW and loc in parents)
        ]

    def problem(self, loc: Loc, error: ErrorDetails) -> str:
        """One line: place in the file, dotted key, what is wrong, what is allowed."""
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
            message = (
                f"{_input_text(error)} is not a full commit hash (40 hex digits); branches and tags move"
            )
        elif error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] in PATTERN_WORDS:
            message = f"{_input_text(error)} is not allowed; write {PATTERN_WORDS[error['ctx']['pattern']]}"
        elif error["type"] != "value_error":
            message = f"{KINDS.get(error['type'], _lower(message))}, found {_input_text(error)}"
        dotted = ".".join(shortened(str(part)) for part in loc)
        return (
            f"{place(self.root, loc)}{dotted}: {message}" if dotted else f"{place(self.root, loc)}{message}"
        )

    def _unknown_key(self, loc: Loc) -> str:
        allowed = self._fields(loc[:-1])
        close = difflib.get_close_matches(str(loc[-1]), allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown key{hint} (allowed: {', '.join(allowed)})"

    def _fields(self, loc: Loc) -> list[str]:
        """Names of the fields of the model at `loc`, and of `more` at the top."""
        model: type[BaseModel] = self.model
        for part in loc:
            if isinstance(part, str) and part in model.model_fields:
                model = _model_in(model.model_fields[part].annotation) or model
        names = [field.alias or name for name, field in model.model_fields.items()]
        return [*names, *self.more] if model is self.model else names


def _location(error: ErrorDetails, document: Any) -> Loc:
    """The place of an error in the document, without the names of union members that pydantic adds.

    A part that the document does not have is such a name, unless it is the last part of a missing key.
    """
    location: list[int | str] = []
    for number, part in enumerate(error["loc"], start=1):
        inside = isinstance(document, Mapping) and part in document
        if inside or (isinstance(document, list | tuple) and isinstance(part, int)):
            document = document[part]
        elif error["type"] != "missing" or number < len(error["loc"]):
            continue
        location.append(part)
    return tuple(location)


def _input_text(error: ErrorDetails) -> str:
    return shortened(repr(error["input"]))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _unknown_value(error: ErrorDetails) -> str:
    parts = error.get("ctx", {}).get("expected", "").replace(" or ", ", ").split(", ")
    allowed = [part.strip("'\"") for part in parts]
    # `expected` quotes strings and leaves numbers bare, so that a bare match is a number.
    if isinstance(error["input"], str) and error["input"] in parts:  # a number, as text
        return (
            f"{_input_text(error)} is text; a number is required, write it without quotes: {error['input']}"
        )
    close = difflib.get_close_matches(str(error["input"]), allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{_input_text(error)} is not allowed{hint} (allowed: {', '.join(allowed)})"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        model = _model_in(inner)
        if model is not None:
            return model
    return None


def place(root: yaml.Node, loc: Loc) -> str:
    """`line:column: ` of the deepest part of `loc` that exists in the file."""
    node, mark = root, root.start_mark
    for part in loc:
        step = _child(node, part)
        if step is None:
            break
        node, mark = step
    return _at(mark)


def _child(node: yaml.Node, part: int | str) -> tuple[yaml.Node, yaml.Mark] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark
    return None
