"""What a run shows where there is no terminal."""

import pytest

from pipeline.display import Display
from pipeline.moving import Moving
from pipeline.output import Output, duration, size
from pipeline.step import Step

STEP = Step(kind="engine", inputs={}, params={}, what="aoti, batch 4")


@pytest.fixture
def display(capsys):
    """A display whose every progress line is due."""
    with Display(Output(color=False)) as shown:
        shown.started(STEP)
        shown.said[STEP.key] -= 3600
        shown.since[STEP.key] -= 10
        yield shown


def test_progress_says_how_far_how_fast_and_how_long(display, capsys):
    display.progressed(STEP, 500, 1000, "tokens")
    line = capsys.readouterr().err
    assert line.startswith(f".. engine               {STEP.key[:12]}  500/1,000 tokens, 5")
    assert "eta 10" in line


def test_a_slow_step_shows_no_speed_of_zero(display, capsys):
    display.progressed(STEP, 1, 2, "graphs")
    line = capsys.readouterr().err
    assert "1/2 graphs, eta 10" in line
    assert "0.1/s" not in line


def test_lines_come_only_now_and_then(display, capsys):
    display.progressed(STEP, 1, 2, "graphs")
    display.progressed(STEP, 2, 2, "graphs")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_failure_is_one_line(display, capsys):
    display.failed(STEP, RuntimeError("first\nsecond"))
    err = capsys.readouterr().err
    assert "first" in err
    assert "second" not in err


@pytest.mark.parametrize(("seconds", "text"), [(7.26, "7.3s"), (842, "14m02s"), (7500, "2h05m")])
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (8_400_000, "8.4 MB"), (3e12, "3.0 TB")])
def test_sizes_are_said_as_people_say_them(count, text):
    assert size(count) == text


def test_what_moves_says_a_line_per_phase_and_leaves_no_empty_one(capsys):
    with Moving(Output(color=False), "gc") as moving:
        moving(1, 10, "manifests")
        moving.said -= 3600
        moving.since -= 10
        moving(5, 10, "manifests")
        moving.said -= 3600
        moving(1, 4, "removed")  # another phase, timed from now
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(".. gc  5/10 manifests, 0.5/s, eta 10")
    assert second.startswith(".. gc  1/4 removed, ")
