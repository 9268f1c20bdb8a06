"""Parameters and places of the steps that calibration builds; imports neither torch nor transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from calibration.job import FormatParam, Job, NoPlaces, Parameters, Places
from calibration.statistics.budget import Budget

Count = int | Literal["all"]
Device = Literal["cpu", "cuda"]


class TextSource(Parameters):
    """One source of text: what is in its files, and how rows are read and rendered."""

    kind: str | None = None
    """Kind of the files, beside their `digests`."""
    digests: tuple[str, ...] | None = None
    """sha256 of each file on this host, in hexadecimal."""
    dataset: str | None = None
    """Role of the input that holds `files`, of a hub dataset."""
    files: tuple[str, ...] | None = None
    columns: Mapping[str, str]
    """What is held -> column; empty where the names of the columns decide."""
    bad_rows: int
    """Rows that may be left out because they cannot be read."""
    render: str
    system: str | None = None
    template: str | None = None
    """Text of a chat template."""

    def drawn(self, samples: Count, date: str | None = None) -> "DrawnSource":
        """The source, and how much of it is taken."""
        # Not `model_dump`, which would turn nested values into plain ones.
        fields = {name: getattr(self, name) for name in TextSource.model_fields}
        return DrawnSource(**fields, samples=samples, date=date)


class DrawnSource(TextSource):
    """A source of text, and how much of it is taken."""

    samples: Count
    date: str | None = None
    """Today, to a chat template that prints the date."""


class TextPlaces(Places):
    """Where sources of text are."""

    files: tuple[tuple[Path, ...], ...]
    """Files of each source; none of a hub dataset, whose files an input holds."""
    model: str = ""
    """The model whose tokenizer is used, as messages call it."""


class Blend(Parameters):
    """How much of all sources together is taken, divided by their weights."""

    samples: int | None = None
    tokens: int | None = None
    weights: tuple[float, ...]


class CalibrationSetParams(Parameters):
    """Token sequences to measure ranges on."""

    data: tuple[DrawnSource, ...]
    blend: Blend | None = None
    seq_len: int
    max_sequences: Count
    pack: bool
    truncate: Literal["right", "left"]
    seed: int
    tools: Mapping[str, str]


class Draw(Parameters):
    """Which rows the gate will draw."""

    samples: Count
    seed: int


class LeakageParams(Parameters):
    """The check that no calibration sample stands in the gate's data."""

    gate: TextSource
    drawn: Draw | None = None
    """Also checks that no row which the gate draws has a token that the model lacks."""


class StatisticsParams(Parameters):
    """One pass over the calibration set."""

    record: Literal["ranges", "all"]
    batch_size: int
    device: Device
    tools: Mapping[str, str]


class StatisticsPlaces(Places):
    """Caps of the pass, and where an interrupted one goes on."""

    memory: Budget
    every_expert: bool = False
    """A pass that sees no token for some expert fails early."""
    resume: Path | None = None
    """Directory that survives an interruption; the store's is set when the step runs."""


class SensitivityParams(Parameters):
    """What quantization costs each linear."""

    formats: tuple[str, ...]
    smoothing: float
    device: Device
    tools: Mapping[str, str]


class QuantizedParams(Parameters):
    """Weights in the recipe's format."""

    format: FormatParam
    kv_cache: str
    smoothing: float | None = None
    """SmoothQuant's alpha; absent where no format smooths by it."""
    tools: Mapping[str, str]


CalibrationSetJob = Job[CalibrationSetParams, TextPlaces]
LeakageJob = Job[LeakageParams, TextPlaces]
StatisticsJob = Job[StatisticsParams, StatisticsPlaces]
SensitivityJob = Job[SensitivityParams, NoPlaces]
QuantizedJob = Job[QuantizedParams, NoPlaces]


def located(
    sources: Sequence[TextSource], places: TextPlaces, inputs: Mapping[str, Path]
) -> list[tuple[Path, ...]]:
    """The files of each source on this host: its own, or those of the input that its `dataset` names."""
    return [
        files
        if source.dataset is None
        else tuple(inputs[source.dataset] / name for name in source.files or ())
        for source, files in zip(sources, places.files, strict=True)
    ]
