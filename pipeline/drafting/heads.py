"""Heads that propose tokens beside a model, a source of their own: weights and config.json, no tokenizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import digest
from artifacts.store.local import LocalStore
from calibration import links
from pipeline.errors import SourceError
from pipeline.process.meter import Meter, Progress
from pipeline.sources.copying import copy, require_room, sha256
from pipeline.sources.snapshot import PAPERS, PICKLES, require_sizes, unreadable
from pipeline.step.step_parameters import SourceJob, SourceParams, SourcePlaces
from pipeline.weights.finite import check_finite
from pipeline.weights.tensors import Checkpoint, read_config, read_header
from recipes.regular import resolved
from recipes.schema import Model

WEIGHTS = ("medusa_lm_head.safetensors", "model.safetensors")
"""Names of the one weight file, the first that exists."""

PREFIX = "heads."
"""Begins the names of head tensors beside a model's, which may be the same."""

Kind = tuple[str, tuple[int, ...]]
"""Type and shape of a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The heads before any weight is read."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Kind]
    weight_bytes: int
    params: SourceParams
    places: SourcePlaces


def read_heads(model: Model, base: Path, store: LocalStore) -> Heads:
    """Reads the heads that a recipe names by a directory; a SourceError where they cannot be used."""
    if model.path is None:
        raise SourceError(
            f"{model.repo}: heads are read from a directory; download the repository and give its 'path'"
        )
    directory = resolved(base / model.path)
    checkpoint = open_heads(directory)
    return Heads(
        config=checkpoint.config,
        tensors=kinds(checkpoint),
        weight_bytes=sum(entry.nbytes for entry in checkpoint.entries.values()),
        params=SourceParams(digest=_digest_files(directory, store.digests.digest)),
        places=SourcePlaces(path=directory),
    )


def open_heads(directory: Path) -> Checkpoint:
    """Opens heads after checking the header of their weight file; pickled ones are a SourceError."""
    if not directory.is_dir():
        raise SourceError(f"{directory}: no such directory; name the one that holds the heads")
    # before the first read: what a link leads to would be published with the heads
    if problem := links.describe_links(directory, ["config.json", *WEIGHTS, *_list_papers(directory)]):
        raise SourceError(problem)
    config = read_config(directory)
    file = next((directory / name for name in WEIGHTS if (directory / name).is_file()), None)
    if file is not None:
        return Checkpoint(directory, config, read_header(file))
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    content = f"holds pickled weights only ({', '.join(pickles)})" if pickles else "holds no weights"
    raise SourceError(
        f"{directory}: {content}; only safetensors files are read, because a pickle can run any code: "
        f"convert the heads to {' or '.join(WEIGHTS)}"
    )


def kinds(heads: Checkpoint) -> dict[str, Kind]:
    """Type and shape of every tensor, by its own name."""
    return {name: (entry.dtype, entry.shape) for name, entry in heads.entries.items()}


def differences(expected: Mapping[str, Kind], present: Mapping[str, Kind]) -> list[str]:
    """Says of every tensor that is missing, too many, or of another type or shape."""
    problems = []
    for name in sorted({**expected, **present}):
        if name not in present:
            problems.append(f"{name} is missing")
        elif name not in expected:
            problems.append(f"{name} is none of its tensors")
        elif present[name] != expected[name]:
            (has, size), (needs, other) = present[name], expected[name]
            problems.append(f"{name} is {has} {list(size)}, it must be {needs} {list(other)}")
    return problems


def beside(checkpoint: Checkpoint, heads: Checkpoint) -> Checkpoint:
    """A model's checkpoint with the heads' tensors in it, whose names get the prefix."""
    # both models may have a tensor of the same name, say `fc.weight`
    added = {PREFIX + name: entry for name, entry in heads.entries.items()}
    return Checkpoint(checkpoint.directory, checkpoint.config, {**checkpoint.entries, **added})


def build(job: SourceJob, progress: Progress) -> None:
    """Makes an own, verified and finite copy of the heads in `places`, or raises."""
    path, out = job.places.path, job.out
    assert path is not None
    names = _list_files(path)
    total = sum((path / name).stat().st_size for name in names)
    # before the first byte: a full disk in the middle costs the whole copy
    require_room(out, total)
    copied = Meter(progress, total, "bytes copied")
    for name in names:
        copy(path / name, out / name, copied.add)
    hashed = Meter(progress, total, "bytes hashed")
    # of the copy, not of the source: it also proves that the copy is whole
    found = _digest_files(out, lambda file: sha256(file, hashed.add))
    if found != job.params.digest:
        raise SourceError(
            f"{path}: digest {job.params.digest} expected, {found} found; "
            "the directory changed after the plan was made: run again"
        )
    # last, as it reads all weights: NaN in a head would only show when tokens are proposed
    check_finite(open_heads(out), progress)


def _list_files(directory: Path) -> list[str]:
    """The files that make the heads: config, weights, licences and cards."""
    weights = next(iter(open_heads(directory).entries.values())).file.name
    return sorted(["config.json", weights, *_list_papers(directory)])


def _list_papers(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if PAPERS.fullmatch(path.name)]


def _digest_files(directory: Path, digests: Callable[[Path], str]) -> str:
    digest_of, names = {}, _list_files(directory)
    # before hashing: a README of gigabytes is refused at once
    require_sizes(f"{directory}/", {name: (directory / name).stat().st_size for name in names})
    for name in names:
        try:
            digest_of[name] = digests(directory / name).removeprefix("sha256:")
        except OSError as exc:
            raise unreadable(directory / name, exc) from exc
    return digest.of_json(digest_of)
