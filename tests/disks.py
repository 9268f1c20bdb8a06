"""Disks that are really full: small file systems of their own, in memory or in a file."""

import os
import shutil
import subprocess  # noqa: TID251 mounting is done by a program
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from artifacts.store.disk import is_full


@contextmanager
def mounted(where: Path, size: str, kind: str = "tmpfs", inodes: int = 0) -> Iterator[Path]:
    """A file system of its own at an empty directory, which is made; the test is skipped where nobody may."""
    where.mkdir()
    if kind == "tmpfs":
        options = f"size={size},nr_inodes={inodes}" if inodes else f"size={size}"
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
    else:
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("this machine has no mkfs.ext4")
        image = where.with_name(f"{where.name}.img")
        with image.open("wb") as file:
            file.truncate(int(size.removesuffix("m")) << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        argv = ["mount", "-o", "loop", str(image), str(where)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let us mount a small file system: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def fill(path: Path) -> None:
    """Takes every last byte of the disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 24, 1 << 20, 1 << 16, 1 << 12):  # what is allocated need not be written
            try:
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
            except OSError as exc:
                assert is_full(exc)  # noqa: PT017 filling it is the point
        for size in (1 << 10, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as exc:
                assert is_full(exc)  # noqa: PT017 as above


def take_inodes(folder: Path) -> None:
    """Takes every last inode of the disk."""
    folder.mkdir()
    number = 0
    try:
        while True:
            (folder / str(number)).touch()
            number += 1
    except OSError as exc:
        assert is_full(exc)  # noqa: PT017 as above
