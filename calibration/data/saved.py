"""Reads splits and files of directories from `save_to_disk` of `datasets`; standard library only."""

import json
from pathlib import Path
from typing import Any

from calibration.errors import DataError
from calibration.links import describe_links
from recipes.regular import FileRefused, read_text

SPLITS, STATE = "dataset_dict.json", "state.json"

STATE_BYTES = 8 << 20
"""Largest size of either file: enough for the names of a hundred thousand files."""


def data_files(directory: Path, split: str | None) -> list[Path]:
    """The Arrow files of a saved dataset, in order; of one with splits, those of the chosen split.

    DataError for a directory that `save_to_disk` did not write, and for an unknown split.
    """
    _require_inside(directory, [SPLITS, STATE])
    if (directory / SPLITS).is_file():
        chosen = _chosen(directory, split)
        _require_inside(directory, [f"{chosen}/{STATE}"])
        return _files(directory / chosen)
    if not (directory / STATE).is_file():
        raise DataError(
            f"{directory}: has neither {SPLITS} nor {STATE}; give a data file, or a directory from "
            "save_to_disk of datasets"
        )
    if split is not None:
        raise DataError(f"{directory}: has one split without a name, not {split!r}; leave out 'split'")
    return _files(directory)


def _chosen(directory: Path, split: str | None) -> str:
    listed = _read(directory / SPLITS).get("splits")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    if split is None and len(names) == 1:
        return names[0]
    if split is None or split not in names:
        problem = "several splits" if split is None else f"no split {split!r}"
        raise DataError(f"{directory}: {problem}; name one of {', '.join(names) or 'none'} in 'split'")
    return split


def _files(directory: Path) -> list[Path]:
    state = _read(directory / STATE)
    if state.get("_indices_data_files"):
        raise DataError(f"{directory}: rows are selected by an index; save it again after flatten_indices()")
    entries = state.get("_data_files")
    names = [entry.get("filename") for entry in entries] if isinstance(entries, list) else []
    if not names:
        raise DataError(f"{directory / STATE}: names no data files; save the dataset again")
    files = [directory / Path(str(name)).name for name in names]
    _require_inside(directory, [file.name for file in files])
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no such file, though {STATE} names it; save the dataset again")
    return files


def _require_inside(directory: Path, names: list[str]) -> None:
    if problem := describe_links(directory, names):
        raise DataError(problem)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(path, STATE_BYTES))
    except (FileRefused, ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not readable as JSON ({exc}); save the dataset again") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: not a JSON object; save the dataset again")
    return document
