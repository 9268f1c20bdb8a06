"""The calibration section of a recipe: data, method and memory."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from recipes.data import Data, Total
from recipes.frozen import Day, Fraction, Frozen, Several

DATE = "2026-01-01"
"""Date for chat templates that print today's date, unless the recipe sets another."""


class Memory(Frozen):
    """Caps on what calibration may take; a batch size is chosen that keeps below them."""

    gpu_gb: PositiveFloat | None = None
    """GPU memory, in units of 10^9 bytes; without it, what the GPU has."""
    host_gb: PositiveFloat | None = None
    """Resident memory of the calibrating process, in units of 10^9 bytes; without it, what the host has."""


class Calibration(Frozen):
    """What activation ranges are measured on, and how."""

    data: Several[Data] = Field(min_length=1)
    """Sources, blended in this order and then shuffled by the seed."""
    total: Total | None = None
    """Size of the blend, divided by the sources' weights; without it, each source gives its `samples`."""
    pack: bool = True
    """Whether rows are joined end to end and cut; if not, each row is one sequence, cut or padded."""
    truncate: Literal["right", "left"] = "right"
    """Side on which a row that is too long loses tokens."""
    seq_len: PositiveInt = 512
    """Tokens per sequence."""
    max_sequences: PositiveInt | Literal["all"] = "all"
    """Sequences to keep, after shuffling."""
    seed: int = 0
    """Seed of sampling and shuffling."""
    date: Day = DATE
    """Day that chat templates which print today's date are told, in calibration and in the gate: text that
    changed from day to day would be measured anew each day."""
    method: Literal["one_pass", "modelopt"] = "one_pass"
    """`one_pass` records statistics that every format is derived from; `modelopt` runs ModelOpt's own
    calibration of this one format, with the whole model in memory."""
    statistics: Literal["all", "ranges"] = "all"
    """What the pass records: `all` serves every later recipe of this model and data; `ranges` leaves out
    AWQ's search, which takes about as long as the rest."""
    memory: Memory = Memory()
    """Caps that hold while calibrating."""
    smoothing: Fraction = 1.0
    """int8_sq: how much of the input ranges moves into the weights (SmoothQuant's alpha)."""

    @model_validator(mode="after")
    def sizes_agree(self) -> "Calibration":
        """Checks that the blend's size is said in one way, and that padding is not measured as text."""
        if self.total is None and any(item.weight != 1.0 for item in self.data):
            raise ValueError("'weight' divides a total; add 'total: {samples: N}' or 'total: {tokens: N}'")
        if self.total is not None and any(item.samples != "all" for item in self.data):
            raise ValueError("'total' sets how much each source gives; use 'weight' instead of 'samples'")
        if self.method == "modelopt" and not self.pack:
            raise ValueError(
                "method 'modelopt' would measure padding as text; use 'pack: true' or 'one_pass'"
            )
        return self
