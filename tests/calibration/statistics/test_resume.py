import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from calibration.errors import ActivationsUnusable, CheckpointError, ResumeRefused
from calibration.statistics.statistics_artifact import layer_file
from tests.calibration.statistics.passes import job, make, run, start, write_tokens
from tests.jobs import build_statistics as build


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A pass over three layers that could not run the last one: its weights are broken."""
    make(tmp_path / "source")
    shutil.copytree(tmp_path / "source", tmp_path / "broken")
    spoil(tmp_path / "broken", "model.layers.2.mlp.up_proj.weight", float("nan"))
    shutil.move(tmp_path / "source", tmp_path / "whole")
    shutil.move(tmp_path / "broken", tmp_path / "source")
    seal(tmp_path / "source")
    seal(tmp_path / "whole")
    write_tokens(tmp_path / "tokens")
    with pytest.raises(CheckpointError, match=r"layers\.2\.mlp\.up_proj"):
        run(work(tmp_path), tmp_path / "out")
    shutil.move(tmp_path / "source", tmp_path / "broken")
    shutil.move(tmp_path / "whole", tmp_path / "source")
    return tmp_path


def seal(folder: Path, digest: str = "f" * 64) -> None:
    """Gives a directory the digest that the store would."""
    (folder / "manifest.json").write_text(json.dumps({"digest": digest}))


def spoil(source: Path, name: str, value: float) -> None:
    """Puts one value into a tensor of a checkpoint."""
    files = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    path = source / files[name]
    tensors = load_file(path)
    tensors[name].view(-1)[0] = value
    save_file(tensors, path, metadata={"format": "pt"})


def work(root: Path, **params):
    return job(root / "source", root / "tokens", root / "resume", **params)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("layer-*"))}


def straight(root: Path) -> dict[str, bytes]:
    """The layers' files of a pass that nothing interrupted."""
    return content(run(job(root / "source", root / "tokens", root / "straight"), root / "expected"))


@pytest.mark.slow
def test_a_killed_pass_continues_after_its_last_layer_with_the_same_bits(tmp_path: Path):
    make(tmp_path / "source", num_hidden_layers=6)
    write_tokens(tmp_path / "tokens", sequences=8)
    child = start(work(tmp_path, batch_size=1), tmp_path / "out")
    assert child.stdout is not None
    for line in child.stdout:
        done, total = map(int, line.split())
        if done > total * 0.55:
            os.kill(child.pid, signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    finished = json.loads((tmp_path / "resume" / "state.json").read_text())["layers"]
    assert len(finished) == 3
    times = {n: (tmp_path / "resume" / layer_file(n)).stat().st_mtime_ns for n in range(len(finished))}
    out = run(work(tmp_path, batch_size=1), tmp_path / "resumed")
    assert json.loads((out / "report.json").read_text())["layers_resumed"] == len(finished)
    assert times == {n: (tmp_path / "resume" / layer_file(n)).stat().st_mtime_ns for n in times}
    expected = job(tmp_path / "source", tmp_path / "tokens", tmp_path / "straight", batch_size=1)
    assert content(out) == content(run(expected, tmp_path / "expected"))


def test_an_interrupted_pass_continues_with_the_same_bits(interrupted: Path):
    out = run(work(interrupted), interrupted / "resumed")
    report = json.loads((out / "report.json").read_text())
    assert (report["layers_resumed"], report["warnings"]) == (2, [])
    assert content(out) == straight(interrupted)


@pytest.mark.parametrize("change", ["weights", "data", "batch", "tools"])
def test_other_inputs_are_not_mixed_into_an_interrupted_pass(interrupted: Path, change: str):
    params: dict[str, Any] = {}
    if change == "weights":
        seal(interrupted / "source", "0" * 64)
    elif change == "data":
        write_tokens(interrupted / "tokens", sequences=8)
    else:
        params = {"batch_size": 2} if change == "batch" else {"tools": {"torch": "0"}}
    with pytest.raises(ResumeRefused, match=r"was .* is "):
        run(work(interrupted, **params), interrupted / "resumed")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["layer", "state", "hidden", "restart"])
def test_a_damaged_directory_is_begun_anew_and_the_report_says_so(interrupted: Path, damage: str):
    resume = interrupted / "resume"
    if damage == "layer":
        (resume / layer_file(1)).write_bytes((resume / layer_file(1)).read_bytes()[:-1])
    elif damage == "state":
        (resume / "state.json").write_text("{")
    elif damage == "restart":
        state = json.loads((resume / "state.json").read_text())
        (resume / "state.json").write_text(json.dumps(state | {"boot": "an earlier one"}))
    else:
        os.truncate(resume / "hidden-0.2.bin", 10)
    out = run(work(interrupted), interrupted / "resumed")
    report = json.loads((out / "report.json").read_text())
    assert report["layers_resumed"] == 0
    assert report["warnings"][0].endswith("began anew")
    assert content(out) == straight(interrupted)


def test_a_restart_forgets_what_was_finished_before_it_overwrites_anything(interrupted: Path):
    os.truncate(interrupted / "resume" / "hidden-0.2.bin", 10)
    killed: list[int] = []

    def interrupt(done: int, _total: int, _unit: str) -> None:
        killed.append(done)
        if len(killed) == 2:  # after the embedding, before a layer is finished
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(work(interrupted), interrupted / "out", interrupt)
    assert content(run(work(interrupted), interrupted / "resumed")) == straight(interrupted)


def test_layers_finished_before_an_abort_are_kept(interrupted: Path):
    state = json.loads((interrupted / "resume" / "state.json").read_text())
    assert len(state["layers"]) == 2


def test_a_module_whose_inputs_are_not_finite_is_named(tmp_path: Path):
    make(tmp_path / "source")
    spoil(tmp_path / "source", "model.layers.1.input_layernorm.weight", float("inf"))
    write_tokens(tmp_path / "tokens")
    with pytest.raises(ActivationsUnusable, match=r"model\.layers\.1\.self_attn\.q_proj: 1 of 128"):
        run(work(tmp_path), tmp_path / "out")
