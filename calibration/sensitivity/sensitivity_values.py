"""Types of the JSON that the sensitivity step writes, and of the table and page made from it."""

from typing import TypedDict


class UnitValues(TypedDict):
    """A unit in sensitivity.json."""

    linears: list[str]
    """Module names."""
    errors: dict[str, float]
    """Format -> relative output error."""
    bytes: dict[str, int]
    """Format -> bytes of the weights and their scales."""


class LinearValues(TypedDict):
    """A linear in sensitivity.json; errors and bytes as of units."""

    module: str
    shape: list[int]
    rows: int
    """Rows of the sample that the errors are measured on."""
    errors: dict[str, float]
    bytes: dict[str, int]


class ModelValues(TypedDict):
    """The measured model in sensitivity.json."""

    architectures: list[str] | None
    layers: int


class Sensitivity(TypedDict):
    """Contents of sensitivity.json."""

    layout_version: int
    model: ModelValues
    formats: list[str]
    left_out: dict[str, str]
    """Format -> why it was not measured."""
    linears: list[LinearValues]
    units: list[UnitValues]


FormatWithExceptions = TypedDict("FormatWithExceptions", {"default": str, "except": dict[str, str]})
"""A recipe's `format` with exceptions: module name -> format."""


class ProposalValues(TypedDict):
    """A proposal as JSON."""

    format: str | FormatWithExceptions
    yaml: str
    units: list[str]
    gain: float
    added_bytes: int
    total_bytes: int


RankedUnit = TypedDict(
    "RankedUnit", {"unit": str, "error": float, "share_%": float, "added_MB": float, "proposed": str}
)
"""A line of the table of units."""


class BargainValues(TypedDict):
    """A trade in the data of the page's script."""

    label: str
    linears: tuple[str, ...]
    gain: float
    added: int


class ScriptData(TypedDict):
    """What the page's script needs of one format."""

    units: int
    bytes: int
    forced: list[str]
    order: list[str]
    """Every linear, layer by layer."""
    bargains: list[BargainValues]
    """The best trade first."""
