"""Opens a source of text: the planned files, unchanged, every row checked."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from calibration.data.scan import Scan, scan
from calibration.errors import DataError
from calibration.parameters import TextSource
from calibration.step_progress import Progress

SUFFIXES = (".jsonl", ".csv", ".parquet", ".txt")
"""Kinds of data files, by suffix."""


def kind_of(name: str) -> str:
    """Kind of a data file by its suffix; DataError for an unknown one."""
    suffix = Path(name).suffix
    if suffix not in SUFFIXES:
        raise DataError(f"{name}: unknown kind of data file {suffix!r}; have {', '.join(SUFFIXES)}")
    return suffix.removeprefix(".")


def open_sources(
    sources: Sequence[TextSource], files: Sequence[Sequence[Path]], progress: Progress
) -> list[Scan]:
    """Scans each source; `files` holds each one's paths on this host.

    Raises DataError for one that changed after the plan was made.
    """
    return [open_source(source, paths, progress) for source, paths in zip(sources, files, strict=True)]


def open_source(source: TextSource, files: Sequence[Path], progress: Progress) -> Scan:
    """Scans the files of one source."""
    from calibration.data.table_files import open_file  # pyarrow costs 0.2 s, which a plan must not pay

    for file, digest in zip(files, source.digests or (None,) * len(files), strict=True):
        if digest is not None and sha256(file) != digest:
            raise DataError(f"{file}: the file changed after the plan was made; plan again")
    kinds = [source.kind or kind_of(file.name) for file in files]
    opened = [open_file(file, kind) for file, kind in zip(files, kinds, strict=True)]
    return scan(opened, kinds[0], source.columns, allowed=source.bad_rows, progress=progress)


def sha256(path: Path) -> str:
    """Digest of a file's bytes, in hexadecimal; DataError for an unreadable file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise DataError(f"{path}: cannot be read ({exc.strerror}); plan again") from None
