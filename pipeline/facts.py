"""What a plan needs to know about the outside world: read here, so that planning itself is pure."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.store import LocalStore
from calibration import rows
from calibration.errors import DataError
from pipeline.errors import SourceError
from pipeline.host import Host
from pipeline.shape import ModelShape, read_shape
from pipeline.snapshot import Remote, local_digest, remote_checkpoint
from pipeline.tensors import Checkpoint, open_checkpoint
from recipes.errors import RecipeError
from recipes.load import Loaded
from recipes.schema import Data, Recipe

Digest = Callable[[Path], str]

SCAN_BYTES = 32 << 20
"""Read of each data file while somebody waits for a plan; 0.3 s. The step that uses it reads all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One text file that a recipe names."""

    path: Path
    digest: str
    kind: str
    """`jsonl` or `txt`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source checkpoint, before any weight is read."""

    shape: ModelShape
    weight_bytes: int
    params: Mapping[str, Any]
    """What its key hashes."""
    places: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything outside the recipe that a plan depends on."""

    host: Host
    source: Source
    data: Mapping[str, DataFile]
    """Path as the recipe writes it -> the file."""
    free_bytes: int
    """Free space where the store is."""


def gather(loaded: Loaded, host: Host, store: LocalStore) -> Facts:
    """Reads headers, hashes data files; every missing or broken file is reported at once."""
    problems: list[str] = []
    data: dict[str, DataFile] = {}
    for place, item in data_items(loaded.recipe):
        try:
            data[item.path] = read_data(loaded.base / item.path, item, store.digests.digest)
        except DataError as exc:
            problems.append(f"{place}: {exc}")
    try:
        found = read_source(loaded, store)
    except SourceError as exc:
        problems.insert(0, f"model: {exc}")
    if problems:
        raise RecipeError(loaded.file, problems)
    return Facts(host=host, source=found, data=data, free_bytes=store.free_bytes())


def data_items(recipe: Recipe) -> Iterable[tuple[str, Data]]:
    """Every data source of the recipe, with its dotted place."""
    if recipe.calibration is not None:
        for number, item in enumerate(recipe.calibration.data):
            yield f"calibration.data.{number}", item
    yield "gate.data", recipe.gate.data


def read_data(path: Path, item: Data, file_digest: Digest) -> DataFile:
    """Checks the lines of a data file (of a huge one, the first) and hashes it."""
    scan = rows.scan(path, item.column, budget_bytes=SCAN_BYTES)
    if scan.complete and item.samples != "all" and scan.rows < item.samples:
        raise DataError(f"{item.path} has {scan.rows} rows; the recipe asks for {item.samples}")
    return DataFile(path=path, digest=file_digest(path), kind=scan.kind)


def read_source(loaded: Loaded, store: LocalStore) -> Source:
    """Shape, size and identity of the source checkpoint; of a hub commit, only headers are fetched."""
    model = loaded.recipe.model
    if model.path is not None:
        directory = (loaded.base / model.path).resolve()
        digest = local_digest(directory, store.digests.digest)
        return _source(open_checkpoint(directory), {"digest": digest}, {"path": str(directory)})
    remote = Remote(str(model.repo), str(model.revision), store.root / "hub", os.environ.get("HF_ENDPOINT"))
    params = {"repo": model.repo, "revision": model.revision}
    places = {"cache": str(remote.cache), "endpoint": remote.endpoint}
    return _source(remote_checkpoint(remote), params, places)


def _source(checkpoint: Checkpoint, params: Mapping[str, Any], places: Mapping[str, Any]) -> Source:
    weight_bytes = sum(entry.nbytes for entry in checkpoint.entries.values())
    return Source(
        shape=read_shape(checkpoint.config), weight_bytes=weight_bytes, params=params, places=places
    )
