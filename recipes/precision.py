"""Formats of a model's linears: one format, or a default and exceptions; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from recipes.formats import FORMATS, Format, Needs

NEEDS: tuple[Needs, ...] = ("none", "ranges", "search")
"""In ascending order: each one includes those before it."""


@dataclass(frozen=True, slots=True)
class Precision:
    """A format for every linear of a model's layers, by the linear's name in the source checkpoint."""

    default: Format
    exceptions: tuple[tuple[str, Format], ...] = ()
    """Shell pattern of module names, e.g. `model.layers.0.*`, and its format; the first match counts."""

    @classmethod
    def parse(cls, value: "str | Mapping[str, Any]") -> "Precision":
        """A format's name, or `{default: name, except: {pattern: name}}`; the formats must exist."""
        if isinstance(value, str):
            return cls(FORMATS[value])
        exceptions = tuple((pattern, FORMATS[name]) for pattern, name in value["except"].items())
        return cls(FORMATS[value["default"]], exceptions)

    def of(self, module: str) -> Format:
        """The format of one linear, e.g. `model.layers.0.mlp.down_proj`."""
        matches = (fmt for pattern, fmt in self.exceptions if fnmatchcase(module, pattern))
        return next(matches, self.default)

    @property
    def uniform(self) -> bool:
        """Whether every linear has the default format."""
        return all(fmt is self.default for _, fmt in self.exceptions)

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats in use, the default first."""
        return tuple(dict.fromkeys([self.default, *(fmt for _, fmt in self.exceptions)]))

    @property
    def quantizes(self) -> bool:
        """Whether any linear leaves the source dtype."""
        return any(fmt.weight != "source" for fmt in self.formats)

    @property
    def needs(self) -> Needs:
        """What calibration must record for all formats in use."""
        return max((fmt.needs for fmt in self.formats), key=NEEDS.index)

    def as_param(self) -> str | dict[str, Any]:
        """The JSON value that `parse` reads; equal precisions have equal values, since keys hash them."""
        # Exceptions that change nothing must not change the key.
        if self.uniform:
            return self.default.name
        return {
            "default": self.default.name,
            "except": {pattern: fmt.name for pattern, fmt in self.exceptions},
        }

    def __str__(self) -> str:
        """Text for messages: `fp8`, or `fp8 with exceptions`."""
        return self.default.name if self.uniform else f"{self.default.name} with exceptions"
