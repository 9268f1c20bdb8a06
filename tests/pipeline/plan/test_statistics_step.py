import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from artifacts.store.local import PARTIAL_MAX_AGE_S, LocalStore
from calibration.errors import MemoryExceeded
from calibration.parameters import StatisticsParams, StatisticsPlaces
from calibration.statistics.budget import Budget
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site, realize
from pipeline.step.step import Step
from tests.calibration.statistics.passes import ROOMY, make, write_tokens

SOURCE, TOKENS = "a" * 64, "b" * 64


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A store with a source and a calibration set."""
    store = LocalStore(tmp_path / "store")
    with store.write(SOURCE, kind="source", step={}, host={}) as draft:
        make(draft.path)
    with store.write(TOKENS, kind="calibration_set", step={}, host={}) as draft:
        write_tokens(draft.path)
    return Site(store=store, host=probe())


def step(host_bytes: int) -> Step:
    budget: dict[str, Any] = ROOMY | {"host_bytes": host_bytes}
    return Step(
        kind="statistics",
        inputs={"source": SOURCE, "calibration_set": TOKENS},
        params=StatisticsParams(record="ranges", batch_size=4, device="cpu", tools={}),
        places=StatisticsPlaces(memory=Budget(**budget)),
    )


@pytest.mark.slow
def test_a_failed_pass_is_continued_by_the_next_run_and_then_forgotten(site: Site):
    low, high = step(100_000_000), step(1 << 40)
    assert low.key == high.key
    with pytest.raises(MemoryExceeded, match=r"more than the cap of 0\.10 GB"):
        realize(low, site, Listener())
    partial = site.store.partial(low.key)
    assert len(json.loads((partial / "state.json").read_text())["layers"]) == 1
    made = realize(high, site, Listener())
    report = json.loads((site.store.path(made.step.key) / "report.json").read_text())
    assert report["layers_resumed"] == 1
    assert not partial.exists()
    assert site.store.verify(made.step.key) == []


def test_interrupted_builds_are_swept_when_nobody_continued_them_for_long(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    old, young = store.partial("0" * 64), store.partial("1" * 64)
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "state.json").write_text("{}")
    then = time.time() - PARTIAL_MAX_AGE_S - 60
    for path in (old / "state.json", old, young):
        os.utime(path, (then, then))
    assert store.sweep() == [old]
    assert young.is_dir()
