"""Downloads from a real HTTP server that misbehaves: the identical snapshot, or an error and nothing."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from tests import hub as hubs
from tests.checkpoints import (
    FIRST,
    HIDDEN,
    Reports,
    checkpoint,
    held,
    hub_job,
    refused,
    start_build,
    tensors,
    until,
)
from tests.jobs import build_source


def test_a_hub_commit_arrives_whole_without_pickles_or_code(hub: hubs.Hub, tmp_path: Path, out: Path):
    reports = Reports()
    build_source(hub_job(hub, tmp_path), out, reports)
    assert held(out) == checkpoint()
    total = sum(map(len, checkpoint().values()))
    assert (total, total, "bytes fetched") in reports
    assert reports[-1][0] == reports[-1][1]
    assert all(0 <= done <= total for done, total, _ in reports)


def test_a_second_build_needs_no_hub(hub: hubs.Hub, tmp_path: Path, out: Path):
    job = hub_job(hub, tmp_path)
    build_source(job, out, Reports())
    asked = dict(hub.requests)
    again = out.with_name("again")
    again.mkdir()
    build_source(job, again, Reports())
    assert held(again) == checkpoint()
    assert not any(path.samefile(again / path.name) for path in out.iterdir())
    assert dict(hub.requests) == asked


def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: hubs.Hub,
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    build_source(hub_job(hub, tmp_path), out, Reports())
    seen = {path.startswith("/storage/"): token for path, token in hub.tokens}
    assert seen == {False: "Bearer hf_verysecret", True: None}
    assert "verysecret" not in "".join(capfd.readouterr())
    assert not any(b"verysecret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


RECOVERED: dict[str, Any] = {
    "closed connection": [hubs.drop_after(50_000)],
    "reset connection": [hubs.drop_after(50_000, reset=True)],
    "several drops": [hubs.drop_after(30_000), hubs.drop_after(30_000), hubs.drop_after(30_000)],
    "429": [hubs.status(429, Retry_After="1")],
    "429 with RateLimit": [hubs.status(429, RateLimit='"resolvers";r=0;t=1')],
    "500": [hubs.status(500), hubs.status(503, Retry_After="0")],
    "truncated body": [hubs.truncate_to(50_000)],
    "wrong bytes": [hubs.garble],
    "resumed into wrong bytes": [hubs.drop_after(50_000), hubs.garble],
}


@pytest.mark.parametrize("fault", RECOVERED)
def test_a_passing_fault_gives_the_identical_snapshot(fault: str, hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults[FIRST] = list(RECOVERED[fault])
    started = time.monotonic()
    build_source(hub_job(hub, tmp_path), out, Reports())
    assert held(out) == checkpoint()
    assert hub.faults[FIRST] == []
    if fault.startswith("429"):
        assert time.monotonic() - started >= 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_drop_costs_only_the_bytes_that_are_missing(reset: bool, hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults[FIRST] = [hubs.drop_after(50_000, reset=reset)]
    build_source(hub_job(hub, tmp_path), out, Reports())
    assert hub.ranges == [(FIRST, 50_000)]
    assert hub.sent[FIRST] == len(checkpoint()[FIRST]) - 50_000


def test_a_hub_that_ignores_ranges_is_read_from_the_start(hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.ignore_ranges = True
    hub.faults[FIRST] = [hubs.drop_after(50_000)]
    build_source(hub_job(hub, tmp_path), out, Reports())
    assert held(out) == checkpoint()


@pytest.mark.slow
def test_a_killed_download_goes_on_where_it_stopped(hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults[FIRST] = [hubs.drop_after(50_000), hubs.status(503, Retry_After="60")]
    job = hub_job(hub, tmp_path)
    child = start_build(job, out)
    until(lambda: hub.requests[FIRST] == 2)
    child.kill()
    child.wait()
    assert list(out.iterdir()) == []
    build_source(job, out, Reports())
    assert held(out) == checkpoint()
    assert hub.ranges == [(FIRST, 50_000)] * 2
    assert hub.sent[FIRST] == len(checkpoint()[FIRST]) - 50_000


LASTING: dict[str, Any] = {
    "wrong bytes": ([hubs.garble] * 2, ("sha256:", "expected", "found")),
    "503": ([hubs.status(503, Retry_After="0")] * 6, ("HTTP 503, 6 times in a row",)),
    "429 for an hour": ([hubs.status(429, Retry_After="3600")], ("HTTP 429", "3600 s")),
    "file gone": ([hubs.status(404, X_Error_Code="EntryNotFound")], ("HTTP 404",)),
    "gated": ([hubs.status(403, X_Error_Code="GatedRepo")], ("gated", "hf auth login")),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_lasting_fault_leaves_nothing_usable(fault: str, hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults[FIRST], said = list(LASTING[fault][0]), LASTING[fault][1]
    refused(hub_job(hub, tmp_path), out, hubs.REPO, FIRST, *said)
    assert list(out.iterdir()) == []
    build_source(hub_job(hub, tmp_path), out, Reports())  # the hub is well again
    assert held(out) == checkpoint()


def test_always_the_same_half_of_a_file_ends_in_an_error(hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.ignore_ranges = True
    hub.faults[FIRST] = [hubs.truncate_to(1_000)] * 3 + [hubs.status(404)]
    refused(hub_job(hub, tmp_path), out, FIRST, "HTTP 404")
    assert list(out.iterdir()) == []


def test_a_cache_on_another_disk_is_copied_from(hub: hubs.Hub, out: Path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as cache:
        if Path(cache).stat().st_dev == out.stat().st_dev:
            pytest.skip("needs /dev/shm to be another file system than the temporary directory")
        build_source(hub_job(hub, Path(cache)), out, Reports())
        assert {path.stat().st_nlink for path in Path(cache).rglob("*.safetensors")} == {1}
    assert held(out) == checkpoint()


def test_a_file_damaged_in_the_cache_is_fetched_again(hub: hubs.Hub, tmp_path: Path, out: Path):
    build_source(hub_job(hub, tmp_path), out, Reports())
    (kept,) = (tmp_path / "cache").rglob(FIRST)
    shutil.rmtree(out)
    out.mkdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    build_source(hub_job(hub, tmp_path), out, Reports())
    assert held(out) == checkpoint()
    assert hub.requests[FIRST] == 2


def test_nan_from_the_hub_names_repository_file_and_tensor(hub: hubs.Hub, tmp_path: Path, out: Path):
    broken = tensors()["model.embed_tokens.weight"]
    broken[3, 5] = np.nan
    hub.files[FIRST] = save({"model.embed_tokens.weight": broken})
    refused(
        hub_job(hub, tmp_path),
        out,
        hubs.REPO,
        FIRST,
        "'model.embed_tokens.weight'",
        f"position {3 * HIDDEN + 5}",
    )


@pytest.mark.slow
def test_two_builds_at_once_share_the_download(hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults[FIRST] = [hubs.drop_after(50_000, pause_s=2)]
    job, other = hub_job(hub, tmp_path), out.with_name("other")
    other.mkdir()
    child = start_build(job, other)
    until(lambda: hub.requests[FIRST] == 1)
    build_source(job, out, Reports())
    assert child.wait(30) == 0
    assert held(out) == held(other) == checkpoint()
    assert hub.requests[FIRST] == 2
    assert hub.ranges == [(FIRST, 50_000)]


@pytest.mark.slow
def test_huggingface_hubs_own_settings_apply(hub: hubs.Hub, out: Path):
    job = {"params": {"repo": hubs.REPO, "revision": hubs.COMMIT}, "places": {}, "inputs": {}}
    assert start_build(job, out, HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="1").wait(30) == 1
    said = out.with_name("draft.log").read_text()
    assert "SourceError: acme/tiny@3f1c9a7be2d0: HF_HUB_OFFLINE is set" in said
    assert start_build(job, out, HF_ENDPOINT=hub.address).wait(30) == 0
    assert held(out) == checkpoint()
