"""The base of every part of a recipe, a closed and frozen value, and its field types."""

from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, StringConstraints

from recipes.regular import path_problem

T = TypeVar("T")

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
ALIAS = r"^[A-Za-z][A-Za-z0-9._-]*$"

PATTERN_WORDS = {
    NAME: "parts of letters, digits, . _ and -, each beginning with a letter or a digit, with / between them",
    ALIAS: "letters, digits, . _ and -, beginning with a letter",
}
"""Pattern -> its description."""

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


def _check_day(value: str) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError(f"{value!r} is not a date; write it as 2026-01-31") from None


Day = Annotated[str, AfterValidator(_check_day)]
"""A date, ISO 8601."""


def _check_path(value: str) -> str:
    if problem := path_problem(value):
        raise ValueError(problem)
    return value


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number (allowed: 1)")
    return value


Version1 = Annotated[Literal[1], BeforeValidator(_refuse_bool)]  # to Python, True is 1
"""Version of a document's schema."""

FilePath = Annotated[str, AfterValidator(_check_path)]
"""A path that is valid on Linux file systems."""

Several = Annotated[tuple[T, ...], Strict(False)]  # noqa: FBT003 pydantic's
"""A list in the document, stored as a tuple."""

Fraction = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """A value: no unknown keys, no assignment, field docstrings become schema descriptions.

    Types are strict: texts and booleans are not numbers, and numbers are not texts.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, strict=True
    )
