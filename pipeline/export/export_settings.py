"""What a user may choose about an export, and how it is given: closed models, values as YAML scalars."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from pipeline.errors import ExportRefused
from recipes import yaml_text
from recipes.frozen import Frozen
from recipes.regular import shortened

UNSAFE = frozenset("\"'\\$`{}")
"""What no path or name of an export may hold: `${x}` is a placeholder to Triton's backend, and the rest would
need different quoting in shell, YAML and protobuf text."""


def safe(text: str) -> str:
    """Checks that a text means the same in every file that it is written into."""
    bad = [char for char in text if char in UNSAFE or not char.isprintable()]
    if bad:
        raise ValueError(
            f"{shortened(text)!r} holds {bad[0]!r}; quotes, \\, $, {{}}, ` and control characters are refused"
        )
    return text


def absolute(text: str) -> str:
    """Checks that a path is absolute and without `.` and `..`."""
    parts = [part for part in text.split("/") if part]
    # compared as text: two spellings of one path would differ in the files that are written
    if not parts or text != "/" + "/".join(parts):
        raise ValueError(
            f"{shortened(text)!r} is not an absolute path in its shortest form, e.g. /models/llama"
        )
    if {".", ".."} & set(parts):
        raise ValueError(f"{shortened(text)!r} holds '.' or '..'; give the path itself")
    return text


Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(safe)]
ServedPath = Annotated[Text, AfterValidator(absolute)]
Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]+$")]
MemoryFraction = Annotated[float, Field(gt=0, lt=1)]


class Settings(Frozen):
    """What every exporter asks."""

    root: ServedPath
    """Directory that the export has where it is served, e.g. inside the container; default: where it is
    written."""
    files: Literal["link", "copy", "reference"] = "link"
    """Engine files: hard links to the store, copies, or left in the store and named by their path there."""

    def place(self, name: str, source: Path) -> str:
        """Path, when served, of what lies in `source` in the store and is called `name` in the export."""
        # the store's path goes into the same files, so it must be safe there too
        return safe(str(source)) if self.files == "reference" else f"{self.root}/{name}"


Model = TypeVar("Model", bound=Settings)


def parse_settings(model: type[Model], pairs: Iterable[str], **fixed: str) -> Model:
    """The settings that `key=value` pairs spell; ExportRefused with every problem and what is allowed."""
    values: dict[str, object] = dict(fixed)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ExportRefused(
                f"{shortened(pair)!r} is no setting; write NAME=VALUE (allowed: {allowed(model)})"
            )
        if name not in model.model_fields:
            raise ExportRefused(f"unknown setting {shortened(name)!r}; allowed: {allowed(model)}")
        values[name] = _parse_scalar(text)
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        problems = [
            f"{_format_place(error['loc'])}: {_format_message(error['msg'])}" for error in exc.errors()
        ]
        raise ExportRefused("; ".join(problems)) from None


def allowed(model: type[Settings]) -> str:
    """The names of a model's settings."""
    return ", ".join(model.model_fields)


def _parse_scalar(text: str) -> object:
    try:
        value = yaml_text.parse(text)
    except yaml.YAMLError:
        return text
    # `{0, 0}` is YAML, but here the text of a tree of proposals
    if isinstance(value, dict | list):
        return text
    # `null` and `~` are text too; only an empty value is none
    return text if value is None and text else value


def _format_place(where: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in where) or "settings"


def _format_message(message: str) -> str:
    # pydantic puts it in front of what a validator of ours raises
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
