"""Which files are taken, and their digest."""

import os
from pathlib import Path

import pytest

from pipeline.sources.snapshot import local_digest, wanted
from tests.checkpoints import FIRST, LEFT_BEHIND, checkpoint, digests, lay


def test_the_digest_covers_names_and_bytes_of_wanted_files_only(tmp_path: Path):
    path = lay(tmp_path / "model", checkpoint())
    before = local_digest(path, digests)
    lay(path, LEFT_BEHIND)
    os.utime(path / FIRST, (1, 1))
    assert local_digest(path, digests) == before
    (path / "tokenizer.json").write_bytes(b"{}")
    assert local_digest(path, digests) != before


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "model-1.safetensors", "model.safetensors.index.json"], ["model.safetensors"]),
        (["a.safetensors", "b.bin"], ["a.safetensors"]),
        (["model-1.safetensors", "other.safetensors", "x/model-2.safetensors"], ["model-1.safetensors"]),
        (["LICENSE-A.txt", "license.md", "LICENSE.py", "NOTICE.bin"], ["LICENSE-A.txt", "license.md"]),
        (
            ["additional_chat_templates/rag.jinja", "additional_chat_templates/a/b.jinja", "x/rag.jinja",
             "additional_chat_templates/x.py", "additional_chat_templates/../x.jinja"],
            ["additional_chat_templates/rag.jinja"],
        ),
        (["../config.json", "config.json", "configuration.py", "tokenizer.pkl"], ["config.json"]),
    ],
)  # fmt: skip
def test_wanted_takes_one_set_of_weights_and_nothing_that_runs(names: list[str], chosen: list[str]):
    assert wanted(names) == chosen
