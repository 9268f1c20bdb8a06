"""What a run shows where there is no terminal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.store.local import LocalStore
from calibration.job import Parameters
from pipeline.cli.output import Output
from pipeline.cli.progress import Bar, Display
from pipeline.plan.planning import plan_one
from pipeline.process.host import probe
from pipeline.step.realize import Site, realize
from pipeline.step.step import Step
from pipeline.units import duration, size
from recipes.load import load
from tests.main_job import write_recipe

STEP = Step(kind="engine", inputs={}, params=Parameters(), what="aoti, batch 4")


@pytest.fixture
def display(capsys: pytest.CaptureFixture[str]) -> Iterator[Display]:
    """A display whose every progress line is due."""
    with Display(Output(color=False)) as shown:
        shown.started(STEP)
        shown.paces[STEP.key].last_line -= 3600
        shown.paces[STEP.key].since -= 10
        yield shown


def test_progress_says_how_far_how_fast_and_how_long(display: Display, capsys: pytest.CaptureFixture[str]):
    display.progressed(STEP, 500, 1000, "tokens")
    line = capsys.readouterr().err
    assert line.startswith(f".. engine               {STEP.key[:12]}  500/1,000 tokens, 5")
    assert "eta 10" in line


def test_a_slow_step_shows_no_speed_of_zero(display: Display, capsys: pytest.CaptureFixture[str]):
    display.progressed(STEP, 1, 2, "graphs")
    line = capsys.readouterr().err
    assert "1/2 graphs, eta 10" in line
    assert "0.1/s" not in line


def test_lines_come_only_now_and_then(display: Display, capsys: pytest.CaptureFixture[str]):
    display.progressed(STEP, 1, 2, "graphs")
    display.progressed(STEP, 2, 2, "graphs")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_failure_is_one_line(display: Display, capsys: pytest.CaptureFixture[str]):
    display.failed(STEP, RuntimeError("first\nsecond"))
    err = capsys.readouterr().err
    assert "first" in err
    assert "second" not in err


@pytest.mark.parametrize(("seconds", "text"), [(7.26, "7.3s"), (842, "14m02s"), (7500, "2h05m")])
def test_durations_are_said_as_people_say_them(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (8_400_000, "8.4 MB"), (3e12, "3.0 TB")])
def test_sizes_are_said_as_people_say_them(count: float, text: str):
    assert size(count) == text


def test_what_moves_says_a_line_per_phase_and_leaves_no_empty_one(capsys: pytest.CaptureFixture[str]):
    with Bar(Output(color=False), "gc") as progress:
        progress(1, 10, "manifests")
        progress.pace.last_line -= 3600
        progress.pace.since -= 10
        progress(5, 10, "manifests")
        progress.pace.last_line -= 3600
        progress(1, 4, "removed")  # another phase, timed from now
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(".. gc  5/10 manifests, 0.5/s, eta 10")
    assert second.startswith(".. gc  1/4 removed, ")


@pytest.mark.slow
def test_what_a_calibration_set_warns_of_is_said_when_it_was_built_and_shortly_when_it_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = tmp_path / "data.jsonl"
    rows = [f"row {n} says little" for n in range(4)]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in (rows[0], " ".join(rows * 400))))
    recipe = write_recipe(tmp_path / "recipe.yaml", calibration__data=[{"path": str(data), "samples": 2}])
    site = Site(store=LocalStore(tmp_path / "store"), host=probe())
    plan = plan_one(load(recipe)[0], site)
    out, told = Output(color=False), []
    for _ in range(2):
        with Display(out) as display:
            for kind in ("source", "calibration_set"):
                realize(plan.step(kind), site, display)
        told.append([line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")])
    built, cached = told
    report = json.loads(site.store.file(plan.step("calibration_set").key, "report.json").read_text())
    assert any("gives 9" in text for text in report["warnings"])
    assert built == [f"warning: calibration_set: {text}" for text in report["warnings"]]
    assert len(cached) == 1
    assert cached[0].startswith(built[0])
