"""What every part of a recipe is: a closed, frozen value."""

from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


def _real(value: str) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError(f"{value!r} is no day; write it as 2026-01-31") from None


Day = Annotated[str, AfterValidator(_real)]
"""A day, ISO 8601."""
Fraction = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """A value: no unknown keys, no assignment, field docstrings become schema descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
