"""Writes an export beside its place, then renames it there: complete or not at all."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from artifacts.manifest import MANIFEST
from artifacts.store import disk, scratch, tree
from artifacts.store.disk import refuse_taken
from pipeline.backend.engine_files import SCORING
from pipeline.errors import ExportRefused
from pipeline.export.export_settings import Settings

PROGRAM, TEXT = 0o755, 0o644


def write_export(
    out: Path, files: Mapping[str, str], trees: Mapping[str, Path], settings: Settings
) -> list[str]:
    """Makes `out` with these files and trees; returns the relative names of all, sorted.

    A directory that holds something is a DestinationTaken; a full or read-only disk a StoreUnusable.
    """
    target = out.absolute()
    # Checked before the work, and again just before the rename: copying an engine takes minutes.
    refuse_taken(target)
    to_place = {} if settings.files == "reference" else trees
    # links and references take no room worth asking for
    needed = sum(disk.size_bytes(source) for source in to_place.values()) if settings.files == "copy" else 0
    prefix = f".{target.name}.export"
    with (
        disk.ReportFullDisk(target.parent, "the export", needed_bytes=needed) as full,
        disk.ReportUnwritable(target.parent),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        full.require()
        # what an export left that was killed in the middle
        scratch.sweep(target.parent, prefix)
        with scratch.scratch(target.parent, prefix) as draft:
            for name, source in to_place.items():
                _place_tree(source, draft / name, link=settings.files == "link")
            _write_texts(draft, files)
            names = list(tree.list_files(draft))
            # before the rename: a name must not survive a crash that its content does not
            tree.sync_all(draft)
            refuse_taken(target)
            draft.rename(target)
    return names


def _write_texts(draft: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        # explicit modes: the umask must not decide whether the server can read it
        path.chmod(PROGRAM if text.startswith("#!") else TEXT)


def _place_tree(source: Path, target: Path, *, link: bool) -> None:
    """Links or copies every file but the store's own manifest and the twin that only the gate scored."""
    for name, path in tree.list_files(source).items():
        if name == MANIFEST or name.startswith(f"{SCORING}/"):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if link:
            _link_file(path, target / name)
        else:
            shutil.copyfile(path, target / name)


def _link_file(source: Path, target: Path) -> None:
    """Links a file that never changes."""
    try:
        # resolved: the file itself is linked, whatever links lead to it
        os.link(source.resolve(), target)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        raise ExportRefused(
            f"{source} cannot be linked to {target.parent} ({os.strerror(exc.errno).lower()}); "
            "use --copy or --reference"
        ) from None
