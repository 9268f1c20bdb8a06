"""Opens the data sources in a step's params: checks that files are unchanged, and scans every row."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.data.scan import Scan, scan
from calibration.errors import DataError
from calibration.progress import Progress

SUFFIXES = (".jsonl", ".csv", ".parquet", ".txt")
"""Kinds of data files, by suffix."""


def kind_of(name: str) -> str:
    """Kind of a data file by its suffix; DataError for an unknown one."""
    suffix = Path(name).suffix
    if suffix not in SUFFIXES:
        raise DataError(f"{name}: unknown kind of data file {suffix!r}; have {', '.join(SUFFIXES)}")
    return suffix.removeprefix(".")


def open_sources(
    job: Mapping[str, Any], sources: list[Mapping[str, Any]], files: list[list[str]], progress: Progress
) -> list[Scan]:
    """Scan each source of a job; `files` has the paths of each one on this host.

    A source has `kind` and `digests` (sha256 of each file), or `dataset` and `files`: the role of the input
    artifact with these files. DataError for a file that changed after planning.
    """
    return [
        open_source(data, _files(job, data, paths), progress)
        for data, paths in zip(sources, files, strict=True)
    ]


def open_source(data: Mapping[str, Any], files: list[Path], progress: Progress) -> Scan:
    """Scans the files of one source."""
    from calibration.data.table_files import open_file  # pyarrow costs 0.2 s, which a plan must not pay

    for file, digest in zip(files, data.get("digests", [None] * len(files)), strict=True):
        if digest is not None and sha256(file) != digest:
            raise DataError(f"{file}: the file changed after the plan was made; plan again")
    kinds = [data["kind"] if "digests" in data else kind_of(file.name) for file in files]
    readers = [open_file(file, kind) for file, kind in zip(files, kinds, strict=True)]
    return scan(readers, kinds[0], data["columns"], allowed=data["bad_rows"], progress=progress)


def sha256(path: Path) -> str:
    """Digest of a file's bytes, in hexadecimal; DataError for an unreadable file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise DataError(f"{path}: cannot be read ({exc.strerror}); plan again") from None


def _files(job: Mapping[str, Any], data: Mapping[str, Any], paths: list[str]) -> list[Path]:
    if "dataset" not in data:
        return [Path(path) for path in paths]
    return [Path(job["inputs"][data["dataset"]]) / name for name in data["files"]]
