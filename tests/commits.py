"""An older commit of this repository as a checkout of its own."""

import shutil
import subprocess  # noqa: TID251 git unpacks its commits
import tarfile
from pathlib import Path

from tests.benchmarks.release_0_1 import COMMIT

ROOT = Path(__file__).resolve().parents[1]


def unpack_commit(commit: str, place: Path) -> Path:
    """Unpacks the files of a commit of this repository into `place`, emptied, and returns it; "0.1" names that release."""
    archive = place.with_suffix(".tar")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    of = COMMIT if commit == "0.1" else commit
    subprocess.run(["git", "-C", str(ROOT), "archive", f"--output={archive}", of], check=True)
    with tarfile.open(archive) as files:
        files.extractall(place, filter="data")
    archive.unlink()
    return place
