"""The file that a step's child process reads."""

import json
from pathlib import Path

import pytest

from artifacts.store.opening import open_store
from calibration.job import Job, NoPlaces
from pipeline.process.host import probe
from pipeline.step.child_job import child_job
from pipeline.step.realize import Listener, Site, realize
from pipeline.step.step_parameters import MeasurementParams, TimedHost
from tests.pipeline.toy_steps import CHILD, step


@pytest.fixture
def site(tmp_path: Path):
    return Site(store=open_store(tmp_path / "store"), host=probe(), child=CHILD)


def written(site, made):
    """The job of a step that was made."""
    return json.loads(site.store.log(made.key).with_suffix(".job.json").read_text())


@pytest.mark.slow
def test_a_step_s_job_holds_nothing_that_only_other_steps_need(site):
    engine = step("engine", {}, {"nonce": False})
    measurement = step("measurement", {"engine": engine.key}, {})
    for each in (engine, measurement):
        realize(each, site, Listener())
    assert written(site, measurement).keys() == {"kind", "params", "places", "inputs", "out"}
    assert written(site, measurement)["places"] == {}
    assert written(site, measurement)["inputs"] == {"engine": str(site.store.directory(engine.key))}
    assert written(site, engine)["places"] == {"toolchain": None, "tuning": None}


@pytest.mark.slow
def test_what_earlier_builds_learned_is_offered_to_the_next_engine_of_the_same_settings(site):
    first, second = step("engine", {}, {}), step("engine", {"sharded_checkpoint": "b" * 64}, {})
    for each in (first, second):
        realize(each, site, Listener())
    assert first.key != second.key
    assert written(site, first)["places"]["tuning"] is None
    assert written(site, second)["places"]["tuning"].startswith(str(site.store.root / "staging"))


def test_the_process_is_called_as_messages_say_and_reads_the_file_beside_its_log(tmp_path: Path):
    params = MeasurementParams(
        prompt_len=1, new_tokens=2, repeats=1, host=TimedHost(cpu="avx2", cores=1, gpus=())
    )
    job = Job(kind="measurement", params=params, places=NoPlaces(), inputs={}, out=tmp_path)
    process = child_job(job, name="timing", log=tmp_path / "log", timeout_s=5)
    assert (process.name, process.timeout_s) == ("timing", 5)
    assert process.argv[1:] == ["-m", "pipeline.child.door", str(tmp_path / "log.job.json")]
    assert json.loads((tmp_path / "log.job.json").read_text())["params"] == params.document()
