"""Killed, interrupted, raced and starved runs: the next one continues, and nothing is half-written."""

import json
import os
import random
import signal
import subprocess  # noqa: TID251 whole runs are killed from outside
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from artifacts.client import Client
from artifacts.errors import StoreUnusable
from artifacts.store.opening import open_store
from pipeline.errors import BuildFailed
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site, realize
from pipeline.step.step import Step
from tests.disks import fill, mounted
from tests.main_job import write_recipe
from tests.pipeline.toy import ToyParams
from tests.pipeline.toy_steps import CHILD
from tests.present import present

ROOT = Path(__file__).resolve().parent.parent
KINDS = (
    "source", "calibration_set", "leakage", "statistics", "quantized_checkpoint", "sharded_checkpoint",
    "engine", "measurement", "baseline", "evaluation",
)  # fmt: skip
TIMES = {("measurement", "measurement.json"), ("statistics", "report.json")}
"""Files that say how long something took."""


def start(store: Path, recipe: Path, command: str = "run") -> subprocess.Popen[str]:
    """`enginery run`, or another command, in the background, its story in a pipe."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pipeline.cli",
            "--store",
            str(store),
            "--json",
            *command.split(),
            str(recipe),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, str]:
    """Waits for a successful run; kind -> digest."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return {step["kind"]: step["digest"] for step in json.loads(out)["steps"]}


def contents(store: Path, keys: dict[str, str]) -> dict[tuple[str, str], str]:
    """Step and file -> sha256 of everything that must not depend on how often a run was disturbed."""
    opened = open_store(store)
    return {
        (kind, name): record.sha256
        for kind, key in keys.items()
        for name, record in opened.manifest(key).files.items()
        if (kind, name) not in TIMES
    }


def drafting(store: Path, key: str) -> bool:
    """Whether a draft of the key stands in the staging directory."""
    return any(path.name.startswith(key[:12]) for path in (store / "staging").glob("*"))


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Waits for a condition to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def no_process_of(store: Path) -> bool:
    """Whether no process works for the store any more."""
    mine = os.getpid()
    return not any(
        str(store) in " ".join(p.info["cmdline"] or [])
        for p in psutil.process_iter(["cmdline", "pid"])
        if p.pid != mine
    )


@pytest.fixture(scope="module")
def undisturbed(built: tuple[Path, dict[str, Any]]):
    """A recipe, the keys of its steps, and the contents of a run that nothing disturbed."""
    root, answer = built
    keys = {step["kind"]: step["key"] for step in answer["steps"]}
    assert tuple(keys) == KINDS
    return root / "recipe.yaml", keys, contents(root / "store", keys)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_in_every_step_ends_with_the_same_files(undisturbed, tmp_path: Path):
    """Kills the orchestrator in one step and the step's child in the next, each at a random moment."""
    recipe, keys, expected = undisturbed
    seed = random.randrange(1 << 32)
    print("moments drawn with seed", seed)  # shown when the test fails
    store, rng = tmp_path / "store", random.Random(seed)
    for number, kind in enumerate(KINDS):
        run = start(store, recipe)

        def begun(key: str = keys[kind], run: subprocess.Popen[str] = run) -> bool:
            return drafting(store, key) or run.poll() is not None

        wait_until(begun)
        time.sleep(rng.uniform(0, 0.8))
        if number % 2 and (children := psutil.Process(run.pid).children()):
            children[0].kill()
            assert run.wait(60) in (0, 1), present(run.stderr).read()
        run.kill()
        run.communicate()
        wait_until(lambda: no_process_of(store), 20)
    assert Client(str(store)).registry.names() in ([], ["test/mixed"])
    finish(start(store, recipe))
    assert contents(store, keys) == expected
    assert list((store / "staging").glob("*")) == []
    assert list((store / "partial").glob("*")) == []
    assert [record.number for record in Client(str(store)).registry.versions("test/mixed")] == [1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_statistics_killed_after_a_layer_continue_from_it_with_the_same_bits(undisturbed, tmp_path: Path):
    recipe, keys, expected = undisturbed
    store, key = tmp_path / "store", {"statistics": keys["statistics"]}
    state = open_store(store).partial(keys["statistics"]) / "state.json"
    run = start(store, recipe, "tools sensitivity")
    wait_until(lambda: state.is_file() and json.loads(state.read_bytes())["layers"])
    run.kill()
    run.communicate()
    wait_until(lambda: no_process_of(store), 20)
    finished = len(json.loads(state.read_bytes())["layers"])
    assert not open_store(store).has(keys["statistics"])
    again = start(store, recipe, "tools sensitivity")
    _, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    report = json.loads((open_store(store).path(keys["statistics"]) / "report.json").read_text())
    assert (report["layers_resumed"], report["warnings"]) == (finished, [])
    same = {place: digest for place, digest in expected.items() if place[0] == "statistics"}
    assert contents(store, key) == same
    assert not state.parent.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_at_once_make_one_set_of_artifacts(undisturbed, tmp_path: Path):
    recipe, keys, expected = undisturbed
    runs = [start(tmp_path / "store", recipe) for _ in range(2)]
    first, second = finish(runs[0]), finish(runs[1])
    assert first == second
    assert contents(tmp_path / "store", keys) == expected
    assert set(open_store(tmp_path / "store").keys()) == set(keys.values())
    assert [record.number for record in Client(str(tmp_path / "store")).registry.versions("test/mixed")] == [
        1
    ]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_exits_130_and_leaves_nothing_behind(tmp_path: Path, signum):
    recipe = write_recipe(tmp_path / "recipe.yaml")
    run = start(tmp_path / "store", recipe)
    wait_until(lambda: any((tmp_path / "store" / "staging").glob("*")))
    run.send_signal(signum)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 130, err
    assert "run the same command again to continue" in err
    assert list((tmp_path / "store" / "staging").glob("*")) == []
    wait_until(lambda: no_process_of(tmp_path / "store"), 20)


def toy(function: str, **params: object) -> Step:
    """A step that a function of tests.pipeline.toy makes."""
    return Step(kind="engine", variant=function, inputs={}, params=ToyParams(**params))


@pytest.mark.slow
def test_a_disk_that_fills_during_a_step_is_named_and_leaves_nothing(tmp_path: Path):
    with mounted(tmp_path / "disk", "8m") as disk:
        site = Site(store=open_store(disk / "store"), host=probe(), child=CHILD)
        with pytest.raises(StoreUnusable, match="disk full"):
            realize(toy("fill_disk"), site, Listener())
        assert site.store.keys() == []
        assert list((disk / "store" / "staging").glob("*")) == []


@pytest.mark.slow
def test_a_full_disk_of_temporary_files_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with mounted(tmp_path / "disk", "8m") as disk:
        monkeypatch.setenv("TMPDIR", str(disk))
        monkeypatch.setattr(tempfile, "tempdir", None)  # it is looked up once
        site = Site(store=open_store(tmp_path / "store"), host=probe(), child=CHILD)
        fill_late = toy("fill_temporary")
        said = rf"ran out of room; .* free now that it has ended: [\d,]+ at .*/store, [\d,]+ at {disk}; free"
        with pytest.raises(StoreUnusable, match=said):  # the file is gone with the child
            realize(fill_late, site, Listener())
        fill(disk / "ballast")
        said = (
            rf"disk full: engine [0-9a-f]{{12}} cannot be written: 0 bytes are free at {disk}.*set \$TMPDIR"
        )
        with pytest.raises(StoreUnusable, match=said):
            realize(fill_late, site, Listener())


@pytest.mark.slow
def test_a_failed_step_is_not_stored_and_its_log_is_quoted(tmp_path: Path):
    site = Site(store=open_store(tmp_path), host=probe(), child=CHILD)
    with pytest.raises(BuildFailed, match="broken on purpose"):
        realize(toy("fail"), site, Listener())
    assert site.store.keys() == []
    assert "RuntimeError" in site.store.log(toy("fail").key).read_text()


@pytest.mark.slow
def test_a_step_that_outlasts_its_time_is_stopped(tmp_path: Path):
    site = Site(store=open_store(tmp_path), host=probe(), timeout_s=1, child=CHILD)
    with pytest.raises(BuildFailed, match="still running after 1 s"):
        realize(toy("build", seconds=30), site, Listener())
    assert site.store.keys() == []


@pytest.mark.slow
def test_a_finished_step_is_found_and_not_built_again(tmp_path: Path):
    site = Site(store=open_store(tmp_path), host=probe(), child=CHILD)
    made = realize(toy("build", text="a"), site, Listener())
    again = realize(toy("build", text="a"), site, Listener())
    assert (made.cached, again.cached) == (False, True)
    assert made.manifest == again.manifest
    assert present(made.manifest.peak_memory_bytes) > 1 << 20
