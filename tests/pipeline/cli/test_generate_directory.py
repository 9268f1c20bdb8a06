"""`generate DIRECTORY` refuses what `verify DIRECTORY` refuses, and reads an unchanged file once."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from artifacts import digest
from artifacts.client import Client
from artifacts.errors import ArtifactCorrupt
from pipeline.cli.commands.generate import require_pulled
from tests.artifacts.test_sharing import bytes_read
from tests.callables import Cli
from tests.pipeline.export import published

SIZE = 8 << 20


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pulled version with a file of some size; the user's caches are in a directory of the test."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    store, record = published.publish(published.Version(name="demo"), tmp_path / "store")
    key = "e" * 64
    with store.write(key, kind="engine", step={}, host={}) as draft:
        published.write_engine(published.Version(), draft.path)
        (draft.path / "rank1.engine").write_bytes(os.urandom(SIZE))
    client = Client(store.root)
    made: dict[str, Any] = {"engine_key": key, "recipe": {}, "verdict": "PASS", "facts": dict(record.facts)}
    client.registry.publish(published.Publication(name="demo", **made))
    return client.pull("demo:2", tmp_path / "pulled")


def change(file: Path) -> None:
    """Other bytes in the same size and with the same time of the last write."""
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(b"x" + file.read_bytes()[1:])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_pulled_directory_is_read_once_and_again_where_it_changed(pulled: Path):
    time.sleep(digest.RACY_NS / 1e9 + 0.1)  # a younger file may change without its times telling
    read = [bytes_read()]
    for _ in range(2):
        require_pulled(str(pulled))
        read.append(bytes_read())
    assert read[1] - read[0] > SIZE
    assert read[2] - read[1] < SIZE / 4
    change(pulled / "rank1.engine")
    with pytest.raises(ArtifactCorrupt, match=r"is not as published:\n  rank1\.engine: sha256"):
        require_pulled(str(pulled))


def test_generate_says_of_a_damaged_directory_what_verify_says(pulled: Path, cli: Cli):
    change(pulled / "rank0.engine")
    (pulled / "tokenizer" / "tokenizer.json").unlink()
    refused, verified = cli("generate", pulled, "def "), cli("verify", pulled)
    assert (refused.returncode, refused.stderr) == (verified.returncode, verified.stderr)
    assert verified.returncode == 1
    assert "tokenizer/tokenizer.json: missing" in refused.stderr


def test_an_engine_that_was_not_pulled_is_told_to_be_none(pulled: Path, cli: Cli):
    (pulled / "version.json").unlink()
    refused = cli("generate", pulled, "def ")
    assert refused.returncode == 1
    assert f"version.json: missing; {pulled} is not a pulled version, or lost it" in refused.stderr
    (pulled / "engine.json").unlink()
    assert "holds no engine (no engine.json); give a published version" in cli("generate", pulled, "x").stderr
