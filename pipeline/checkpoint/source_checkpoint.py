"""The source step: an own, checked copy of a local checkpoint or of a hub repository at a commit."""

import errno
import json
from pathlib import Path

from artifacts.errors import StoreUnusable
from pipeline.checkpoint.families import family
from pipeline.checkpoint.header_comparison import compare
from pipeline.checkpoint.rank_place import SOURCE_TYPES
from pipeline.errors import BackendUnavailable, SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from pipeline.models.tokenizer_check import read_tokens
from pipeline.process.meter import Meter, Progress
from pipeline.sources.copying import copy, place, require_room, sha256
from pipeline.sources.snapshot import Remote, local_digest, local_names, require_json, unreadable
from pipeline.step.step_parameters import SourceJob
from pipeline.weights.casting import cast
from pipeline.weights.finite import check_finite
from pipeline.weights.tensors import Checkpoint, open_checkpoint, read_config

REPORT = "report.json"
"""Says which tensors were cast and which are not read, where there are any."""


def build(job: SourceJob, progress: Progress) -> None:
    """Makes an own copy of the checkpoint's files, complete, verified and finite, or raises."""
    digest, path, out = job.params.digest, job.places.path, job.out
    try:
        if path is None or digest is None:
            where = _download_commit(job, progress)
            _require_tokenizer(out, where)
        else:
            where = _copy_directory(path, digest, out, progress)
        _validate(out, where, progress)
    except OSError as exc:
        # The source raises SourceError for its own files; an OSError with these codes is about the store.
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise StoreUnusable(
            f"{exc.filename or out.parent}: {exc.strerror}; make it writable, with room, or use another"
        ) from exc


def _copy_directory(path: Path, digest: str, out: Path, progress: Progress) -> str:
    names = local_names(path)
    try:
        _open_supported(path)
        require_json(path)
        total = sum((path / name).stat().st_size for name in names)
        require_room(out, total)
        copied = Meter(progress, total, "bytes copied")
        for name in names:
            (out / name).parent.mkdir(exist_ok=True)
            copy(path / name, out / name, copied.add, root=path)
    except PermissionError as exc:
        raise unreadable(Path(exc.filename or path), exc) from exc
    # Hash the copy, not the source: a file may change between the plan, the copy and the check.
    hashed = Meter(progress, total, "bytes hashed")
    copied_digest = local_digest(out, lambda file: sha256(file, hashed.add))
    if copied_digest != digest:
        raise SourceError(
            f"{path}: digest {digest} expected, {copied_digest} found; "
            "the directory changed after the plan was made: run again"
        )
    return str(path)


def _download_commit(job: SourceJob, progress: Progress) -> str:
    from pipeline.sources import hub, hub_download  # they need huggingface_hub, a local checkpoint does not

    params, places, out = job.params, job.places, job.out
    cache = places.cache or out.parent / ".hub"
    remote = Remote(str(params.repo), str(params.revision), cache, places.endpoint)
    files = hub.listing(remote)
    require_room(out, sum(file.size for file in files))
    for path in hub_download.fetch(remote, files, progress):
        target = out / path.relative_to(remote.directory / "files")
        target.parent.mkdir(exist_ok=True)
        place(path, target)
    return remote.where


def _require_tokenizer(out: Path, where: str) -> None:
    """Reads a tokenizer that no plan has seen; a SourceError where it is broken."""
    try:
        tokens = read_tokens(out, read_shape(read_config(out)).vocab_size)
    except SourceError as exc:
        raise SourceError(str(exc).replace(str(out), where)) from exc
    if tokens.missing:
        raise BackendUnavailable(f"{where}: {tokens.missing}")


def _validate(out: Path, where: str, progress: Progress) -> None:
    """Makes what was copied the model that config.json says; errors name the place it came from."""
    try:
        opened = _open_supported(out)
        check_finite(opened, progress)
        shape = read_shape(opened.config)
        comparison, dtype = compare(shape, opened, where), SOURCE_TYPES[shape.dtype]
        if comparison.cast:
            cast(opened, comparison.cast, dtype, progress)
        # Reopened: casting rewrote files, and their offsets moved.
        _require_tied(open_checkpoint(out), shape)
    except SourceError as exc:
        raise SourceError(str(exc).replace(str(out), where)) from exc
    if comparison.cast or comparison.left_out:
        report = {"dtype": dtype, "cast": comparison.cast, "not_read": comparison.left_out}
        (out / REPORT).write_text(json.dumps(report, indent=2) + "\n")


def _require_tied(checkpoint: Checkpoint, shape: ModelShape) -> None:
    """Refuses a head that is there beside the table that it should be: transformers would not tie the two."""
    kin = family(shape.architecture)
    if not shape.tie_word_embeddings or not {kin.head, kin.embedding} <= checkpoint.entries.keys():
        return
    if not checkpoint.same(kin.head, kin.embedding):
        raise SourceError(
            f"{checkpoint.entries[kin.head].file}: tie_word_embeddings is true, but {kin.head} differs from "
            f"{kin.embedding}; set tie_word_embeddings to false, or remove {kin.head}"
        )


def _open_supported(directory: Path) -> Checkpoint:
    checkpoint = open_checkpoint(directory)
    read_shape(checkpoint.config, directory)
    return checkpoint
