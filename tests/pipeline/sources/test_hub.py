"""What the hub is asked before a download, and for a plan."""

import time
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.models.model_json import MODEL
from pipeline.sources.hub_headers import remote_checkpoint
from pipeline.sources.snapshot import Remote, forget
from tests import hub as hubs
from tests.checkpoints import CONFIG, FIRST, Reports, checkpoint, held, hub_job, local_job, refused, tensors
from tests.jobs import build_source


def test_forgetting_a_commit_leaves_what_was_built_of_it(hub: hubs.Hub, tmp_path: Path, out: Path):
    build_source(hub_job(hub, tmp_path), out, Reports())
    remote = Remote(hubs.REPO, hubs.COMMIT, tmp_path / "cache", hub.address)
    remote_checkpoint(remote)
    forget(remote)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == list(
        remote.directory.glob("headers/*.safetensors")
    )
    assert held(out) == checkpoint()


def test_an_answer_for_another_commit_is_refused(hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.commit = "0" * 40
    refused(hub_job(hub, tmp_path), out, hubs.COMMIT, "0" * 40)
    assert list(out.iterdir()) == []


def test_an_unknown_commit_and_a_broken_listing_are_refused(hub: hubs.Hub, tmp_path: Path, out: Path):
    refused(hub_job(hub, tmp_path, revision="1" * 40), out, "acme/tiny@111111111111", "check")
    hub.faults["api"] = [lambda handler, *_: handler.answer(200, b"<html>", {})]
    refused(hub_job(hub, tmp_path), out, "the answer is not a hub's")


def test_a_busy_listing_is_asked_for_again(hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults["api"] = [hubs.status(429, Retry_After="0"), hubs.status(502)]
    build_source(hub_job(hub, tmp_path), out, Reports())
    assert held(out) == checkpoint()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (("tokenizer.json",), "no tokenizer"),
        (("config.json",), "no config.json"),
        (
            (FIRST, "model-00002-of-00002.safetensors", "consolidated.safetensors"),
            "pickled weights only (pytorch_model.bin",
        ),
    ],
)  # fmt: skip
def test_a_hub_repository_that_is_no_checkpoint_is_refused_before_any_download(
    missing: tuple[str, ...], said: str, hub: hubs.Hub, tmp_path: Path, out: Path
):
    for name in missing:
        del hub.files[name]
    refused(hub_job(hub, tmp_path), out, hubs.REPO, said)
    assert set(hub.requests) == {"api"}


def test_planning_reads_headers_and_no_weights(hub: hubs.Hub, tmp_path: Path):
    remote = Remote(hubs.REPO, hubs.COMMIT, tmp_path / "cache", hub.address)
    opened = remote_checkpoint(remote)
    assert opened.config == CONFIG
    assert {name: entry.shape for name, entry in opened.entries.items()} == {
        name: value.shape for name, value in tensors().items()
    }
    assert hub.sent[FIRST] <= 100_000
    asked = sum(hub.requests.values())
    started = time.process_time()
    assert remote_checkpoint(remote).entries == opened.entries
    assert time.process_time() - started < 0.5
    assert sum(hub.requests.values()) == asked


def test_a_slash_after_the_address_does_no_harm(hub: hubs.Hub, tmp_path: Path):
    remote = Remote(hubs.REPO, hubs.COMMIT, tmp_path / "cache", hub.address + "/")
    assert remote_checkpoint(remote).config == CONFIG
    assert remote.directory == Remote(hubs.REPO, hubs.COMMIT, tmp_path / "cache", hub.address).directory


def test_planning_says_that_a_hub_cannot_be_reached(tmp_path: Path):
    with hubs.serve({}) as gone:
        pass
    remote = Remote(hubs.REPO, hubs.COMMIT, tmp_path / "cache", gone.address)
    with pytest.raises(
        SourceError, match=r"acme/tiny@3f1c9a7be2d0: connection failed \(ConnectError\), 2 times"
    ):
        remote_checkpoint(remote)


def test_planning_names_a_truncated_weight_file(hub: hubs.Hub, tmp_path: Path):
    hub.files[FIRST] = hub.files[FIRST][:-10]
    with pytest.raises(SourceError, match=rf"acme/tiny@3f1c9a7be2d0/{FIRST}: \d+ bytes expected") as caught:
        remote_checkpoint(Remote(hubs.REPO, hubs.COMMIT, tmp_path / "cache", hub.address))
    assert str(tmp_path) not in str(caught.value)


def test_planning_fetches_no_config_beyond_its_limit(hub: hubs.Hub, tmp_path: Path):
    hub.files["config.json"] = b" " * (MODEL.nbytes + 1)
    with pytest.raises(SourceError, match=r"config\.json has 33554433 bytes; at most 33554432 are read"):
        remote_checkpoint(Remote(hubs.REPO, hubs.COMMIT, tmp_path / "cache", hub.address))
    assert "config.json" not in hub.requests


def test_headers_kept_for_planning_are_never_a_source(hub: hubs.Hub, tmp_path: Path, out: Path):
    directory = remote_checkpoint(Remote(hubs.REPO, hubs.COMMIT, tmp_path / "cache", hub.address)).directory
    refused(local_job(directory, "sha256:0"), out, "headers without weights")


def test_a_broken_tokenizer_is_refused_by_the_step_that_fetches_it(tmp_path: Path, out: Path):
    with hubs.serve({**checkpoint(), "tokenizer.json": b'{"model": {}}'}) as hub:
        refused(hub_job(hub, tmp_path), out, f"{hubs.REPO}@", "/tokenizer.json: no tokenizer")


class Listed(bytes):
    """Bytes that a hub lists as more."""

    def __len__(self) -> int:
        return 1 << 60


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (FIRST, Listed(b"x"), f"{FIRST} is listed with 1,152,921,504,606,846,976 bytes"),
        ("LICENSE", b"x" * ((4 << 20) + 1), "LICENSE: 4194305 bytes; at most 4194304 are read of a licence"),
        ("license", b"x", "file names 'LICENSE' and 'license' differ only by case"),
    ],
)
def test_files_that_are_not_what_they_are_called_are_refused_before_any_download(
    name: str, data: bytes | Listed, said: str, hub: hubs.Hub, tmp_path: Path, out: Path
):
    hub.files[name] = data
    with pytest.raises(SourceError) as caught:
        build_source(hub_job(hub, tmp_path), out, Reports())
    assert f"acme/tiny@3f1c9a7be2d0: {said}" in str(caught.value)
    assert set(hub.requests) == {"api"}
