"""The source step on local directories, good and bad."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import snapshot_download
from safetensors.numpy import save

from artifacts.errors import StoreUnusable
from pipeline.errors import SourceError
from pipeline.sources import copying
from pipeline.sources.snapshot import local_digest, wanted
from tests import hub as hubs
from tests.checkpoints import (
    CONFIG,
    FIRST,
    LEFT_BEHIND,
    Reports,
    checkpoint,
    digests,
    held,
    lay,
    local_job,
    refused,
)
from tests.jobs import build_source


def test_a_local_checkpoint_is_copied_and_not_linked(tmp_path: Path, out: Path):
    path = lay(tmp_path / "model", checkpoint() | LEFT_BEHIND)
    reports = Reports()
    build_source(local_job(path), out, reports)
    assert held(out) == checkpoint()
    (path / FIRST).write_bytes(b"changed later")
    assert held(out) == checkpoint()
    assert all(not file.is_symlink() and file.stat().st_nlink == 1 for file in map(out.joinpath, held(out)))
    assert {unit for _, _, unit in reports} == {"bytes copied", "bytes hashed", "bytes checked"}


def test_links_are_followed_as_a_hub_cache_needs(hub: hubs.Hub, tmp_path: Path, out: Path):
    path = Path(
        snapshot_download(hubs.REPO, revision=hubs.COMMIT, cache_dir=tmp_path / "hub", endpoint=hub.address)
    )
    links = [file for file in path.rglob("*") if file.is_symlink()]
    assert len(links) == len(checkpoint() | LEFT_BEHIND)
    latest = tmp_path / "latest"
    latest.symlink_to(path)
    build_source(local_job(latest), out, Reports())
    assert held(out) == checkpoint()
    assert not any(file.is_symlink() for file in out.rglob("*"))
    (path / "LICENSE").unlink()
    (path / "LICENSE").symlink_to(tmp_path / "latest" / ".." / ".." / "refs" / "main")
    refused(local_job(path, "-"), out, f"{path}: a link leads out of it: LICENSE -> ")


def test_a_link_out_of_the_directory_is_refused_by_name(tmp_path: Path, out: Path):
    secret = tmp_path / "id_rsa"
    secret.write_text("PRIVATE")
    path = lay(tmp_path / "model", checkpoint())
    for name in ("LICENSE", "tokenizer_config.json", "additional_chat_templates/tool_use.jinja"):
        (path / name).unlink()
        (path / name).symlink_to(secret)
    refused(local_job(path, "-"), out, f"{path}: 3 links lead out of it: LICENSE -> {secret}, ", "cp -rL")
    with pytest.raises(SourceError, match="a link leads out"):
        copying.copy(path / "LICENSE", out / "LICENSE", lambda _: None)
    assert held(out) == {}


def test_a_directory_of_links_is_refused_with_what_to_do(tmp_path: Path, out: Path):
    files, path = lay(tmp_path / "files", checkpoint()), tmp_path / "model"
    path.mkdir()
    for name in checkpoint():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).symlink_to(files / name)
    count = len(checkpoint())
    refused(local_job(path, "-"), out, f"{count} links lead out", f"and {count - 3} more", "cp -rL")


@pytest.mark.parametrize("name", ["vocab.json", "chat_template.json", "added_tokens.json"])
def test_a_json_file_that_is_none_is_not_copied(name: str, tmp_path: Path, out: Path):
    path = lay(tmp_path / "model", checkpoint() | {name: b"-----BEGIN PRIVATE KEY-----"})
    refused(local_job(path), out, f"{path}/{name}: not valid JSON")
    assert held(out) == {}


def test_names_that_one_disk_would_take_for_one_are_refused(tmp_path: Path):
    path = lay(tmp_path / "model", checkpoint() | {"license": b"x"})
    with pytest.raises(SourceError, match=r"model: file names 'LICENSE' and 'license' differ only by case"):
        local_digest(path, digests)


def test_a_paper_that_is_too_long_for_one_is_refused(tmp_path: Path):
    path = lay(tmp_path / "model", checkpoint())
    os.truncate(path / "LICENSE", (4 << 20) + 1)
    with pytest.raises(SourceError, match=r"LICENSE: 4194305 bytes; at most 4194304 are read of a licence"):
        local_digest(path, digests)


def test_a_directory_changed_after_planning_is_refused(tmp_path: Path, out: Path):
    path = lay(tmp_path / "model", checkpoint())
    job = local_job(path)
    (path / "README.md").write_bytes(b"# other")
    refused(job, out, str(path), job["params"]["digest"], "changed after the plan")


def without(*names: str) -> dict[str, bytes]:
    return {name: data for name, data in checkpoint().items() if name not in names}


def with_value(value: float, dtype: type) -> dict[str, bytes]:
    broken: np.ndarray = np.ones((3, 7), dtype)
    broken[2, 6] = value
    return without(FIRST, "model-00002-of-00002.safetensors") | {"model.safetensors": save({"odd": broken})}


BAD = {
    "nothing": ({}, ("no config.json",)),
    "pickles": (
        without(*(name for name in checkpoint() if "safetensors" in name)) | {"pytorch_model.bin": b"\x80"},
        ("pickled weights only (pytorch_model.bin)", "convert"),
    ),
    "no tokenizer": (without("tokenizer.json"), ("no tokenizer", "tokenizer.json")),
    "half a tokenizer": (without("tokenizer.json") | {"vocab.json": b"{}"}, ("no tokenizer",)),
    "truncated": (checkpoint() | {FIRST: checkpoint()[FIRST][:-5]}, (FIRST, "bytes expected", "found")),
    "empty file": (checkpoint() | {FIRST: b""}, (FIRST, "0 found")),
    "weight file missing": (without(FIRST), (FIRST, "no such file")),
    "other architecture": (
        checkpoint() | {"config.json": json.dumps(CONFIG | {"architectures": ["GPT2LMHeadModel"]}).encode()},
        ("config.json", "GPT2LMHeadModel", "LlamaForCausalLM"),
    ),
    "NaN in float32": (with_value(np.nan, np.float32), ("model.safetensors", "'odd'", "position 20")),
    "infinity in float16": (with_value(-np.inf, np.float16), ("model.safetensors", "'odd'", "position 20")),
    "NaN in float64": (with_value(np.nan, np.float64), ("model.safetensors", "'odd'", "position 20")),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_directory_is_refused_by_name(case: str, tmp_path: Path, out: Path):
    files, said = BAD[case]
    path = tmp_path / "model"
    path.mkdir()
    lay(path, files)
    everything = {name: digests(path / name) for name in sorted(wanted(files))}
    digest = "sha256:" + hashlib.sha256(json.dumps(everything).encode()).hexdigest()
    refused(local_job(path, digest), out, str(path), *said)


def test_a_missing_directory_a_file_and_odd_entries_are_refused(tmp_path: Path, out: Path):
    path = lay(tmp_path / "model", checkpoint())
    refused(local_job(tmp_path / "none", "-"), out, "none: cannot be listed (No such file")
    refused(local_job(path / "config.json", "-"), out, "cannot be listed (Not a directory)")
    (path / "LICENSE").unlink()
    (path / "LICENSE").symlink_to("nowhere")
    refused(local_job(path, "-"), out, "LICENSE: no regular file, or a link to nothing")
    (path / "LICENSE").unlink()
    os.mkfifo(path / "LICENSE")
    refused(local_job(path, "-"), out, "LICENSE: no regular file")


def test_an_unreadable_file_is_named(out: Path):
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        path = lay(Path(parent) / "model", checkpoint())
        (path / "tokenizer.json").chmod(0)
        job, user = local_job(path, "sha256:0"), os.geteuid()
        out.chmod(0o777)
        for above in out.parents[:4]:
            above.chmod(0o755)
        if user == 0:
            os.seteuid(65534)  # root reads everything
        try:
            refused(job, out, "tokenizer.json: cannot be read (Permission denied)")
            with pytest.raises(SourceError, match=r"tokenizer\.json: cannot be read"):
                local_digest(path, digests)
        finally:
            os.seteuid(user)


def test_a_disk_that_is_too_small_is_noticed_before_the_copy(tmp_path: Path, out: Path):
    size = 8 << 40
    header = json.dumps({"big": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path = lay(tmp_path / "model", without(FIRST, "model-00002-of-00002.safetensors"))
    with (path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    with pytest.raises(
        StoreUnusable, match=r"disk full: the copy of .* needs [\d,]+ bytes, and [\d,]+ are free"
    ):
        build_source(local_job(path, "-"), out, Reports())
    assert list(out.iterdir()) == []
