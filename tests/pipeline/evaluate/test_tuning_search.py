"""Choosing points and choosing among trials."""

import json
import math
from itertools import product
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import NoFeasiblePoint
from pipeline.evaluate.tuning_search import Trial, apply, best_row, choose, misses, points, trial_rows
from recipes.schema import Budget, Engine, Slo
from tests.present import present

ENGINE = Engine(max_batch_size=16, options={"autotune": True, "threads": 2})
SPACE = {"max_batch_size": (4, 16, 64), "max_seq_len": (128, 512), "options.autotune": (False, True)}


def row(batch, speed, *, ttft=50.0, itl=5.0, per_user=None) -> dict[str, Any]:
    return {
        "batch_size": batch,
        "tokens_per_s": speed,
        "tokens_per_s_per_user": speed / batch if per_user is None else per_user,
        "ttft_ms_p50": ttft * 0.8,
        "ttft_ms_p95": ttft,
        "itl_ms_p50": itl * 0.8,
        "itl_ms_p95": itl,
    }


def trial(batch: int, *rows, why: str = "") -> Trial:
    measurement = {"rows": list(rows)} if rows else None
    return Trial(
        point={"max_batch_size": batch},
        engine=None if why else f"key{batch}",
        measurement=measurement,
        why=why,
    )


SETTING = st.sampled_from(["max_batch_size", "max_seq_len", "options.a", "options.b"])
VALUES = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)


@given(st.dictionaries(SETTING, VALUES, min_size=1), st.integers(1, 40), st.integers(0, 5))
def test_points_are_distinct_within_space_and_budget(space, trials, seed):
    found = points(space, Budget(trials=trials), default=ENGINE, seed=seed)
    grid = math.prod(len(set(values)) for values in space.values())
    assert len(found) == min(trials, grid)
    assert len({json.dumps(point) for point in found}) == len(found)
    assert all(point[name] in space[name] for point in found for name in space)
    assert all(list(point) == list(space) for point in found)


@given(st.dictionaries(SETTING, VALUES, min_size=1), st.integers(1, 40), st.integers(0, 5))
def test_the_recipes_own_settings_come_first_where_the_space_has_them(space, trials, seed):
    engine = Engine(max_batch_size=3, max_seq_len=4, options={"a": 5})
    own = {"max_batch_size": 3, "max_seq_len": 4, "options.a": 5}
    first = points(space, Budget(trials=trials), default=engine, seed=seed)[0]
    for name, values in space.items():
        assert first[name] == (own[name] if own.get(name) in values else values[0])


def test_a_grid_that_fits_is_tried_whole():
    found = points(SPACE, Budget(trials=12), default=ENGINE)
    assert found[0] == {"max_batch_size": 16, "max_seq_len": 512, "options.autotune": True}
    assert {tuple(point.values()) for point in found} == set(product(*SPACE.values()))


def test_a_subset_is_the_same_for_a_seed_and_spreads_to_the_far_corner():
    some = points(SPACE, Budget(trials=5), default=ENGINE, seed=3)
    assert some == points(SPACE, Budget(trials=5), default=ENGINE, seed=3)
    wide = {"max_batch_size": tuple(range(1, 101)), "max_seq_len": tuple(range(1, 101))}
    found = points(wide, Budget(trials=5), default=Engine(max_batch_size=1, max_seq_len=1))
    corners = {(point["max_batch_size"] > 90, point["max_seq_len"] > 90) for point in found[:4]}
    assert len(corners) == 4  # the first four points sit near the four corners


def test_a_huge_space_is_sampled_at_once():
    space = {f"options.o{number}": tuple(range(50)) for number in range(12)}  # 50 ** 12 points
    assert len(points(space, Budget(trials=8), default=ENGINE)) == 8


def test_true_and_one_are_two_values_and_repeats_are_one():
    found = points({"options.x": (1, True, 1)}, Budget(trials=9), default=ENGINE)
    assert [point["options.x"] for point in found] == [1, True]


def test_a_point_changes_the_engine_and_nothing_else():
    changed = apply(ENGINE, {"max_batch_size": 4, "options.threads": 8})
    assert changed == Engine(max_batch_size=4, options={"autotune": True, "threads": 8})
    assert ENGINE.options == {"autotune": True, "threads": 2}


@pytest.mark.parametrize("name", ["max_batch", "tp", "options.", "options", "format"])
def test_an_unknown_setting_is_refused_with_the_known_ones(name: str):
    with pytest.raises(
        ValueError, match=rf"unknown setting '{name}'; have max_batch_size, max_seq_len, options"
    ):
        apply(ENGINE, {name: 1})


@pytest.mark.parametrize("value", [0, -3, "many", None])
def test_a_value_out_of_range_is_refused_with_its_setting(value: int | str | None):
    with pytest.raises(ValueError, match=rf"max_batch_size: {value!r} is refused"):
        apply(ENGINE, {"max_batch_size": value})


def test_throughput_takes_the_most_tokens_and_latency_the_lowest_median():
    trials = [trial(1, row(1, 100, itl=10)), trial(8, row(1, 90, itl=11), row(8, 400, itl=20))]
    assert choose(trials, "throughput", Slo()) is trials[1]
    assert choose(trials, "latency", Slo()) is trials[0]


def test_a_faster_point_that_misses_the_slo_is_not_chosen():
    trials = [trial(8, row(8, 400, ttft=90)), trial(64, row(64, 900, ttft=350))]
    assert choose(trials, "throughput", Slo(ttft_ms_p95=300)) is trials[0]
    assert choose(trials, "throughput", Slo(ttft_ms_p95=400)) is trials[1]
    assert choose(trials, "throughput", Slo(tokens_per_s_per_user=20)) is trials[0]


def test_a_trial_counts_with_its_best_batch_size_that_reaches_the_slo():
    one = trial(8, row(1, 100, itl=8), row(8, 400, itl=30))
    assert best_row(one, "throughput", Slo(itl_ms_p95=10)) == row(1, 100, itl=8)
    assert best_row(one, "throughput", Slo()) == row(8, 400, itl=30)
    assert best_row(one, "throughput", Slo(itl_ms_p95=1)) is None


def test_failed_trials_are_passed_over():
    trials = [trial(64, why="out of memory"), trial(8, row(8, 400))]
    assert choose(trials, "throughput", Slo()) is trials[1]


def test_equal_trials_go_to_the_earlier():
    trials = [trial(4, row(4, 100)), trial(8, row(8, 100))]
    assert choose(trials, "throughput", Slo()) is trials[0]


def test_no_feasible_point_names_the_closest_trial_and_its_miss():
    trials = [trial(8, row(8, 400, ttft=600)), trial(4, row(4, 200, ttft=330)), trial(64, why="killed")]
    with pytest.raises(NoFeasiblePoint, match="none of 3 points reaches") as refused:
        choose(trials, "throughput", Slo(ttft_ms_p95=300))
    assert "closest is max_batch_size=4 at batch 4: ttft_ms_p95 330, wanted at most 300" in str(refused.value)


def test_when_nothing_was_measured_every_reason_is_given():
    with pytest.raises(NoFeasiblePoint, match="none of 2 points could be built") as refused:
        choose([trial(8, why="killed"), trial(4, why="no compiler")], "latency", Slo())
    assert "max_batch_size=8: killed" in str(refused.value)
    assert "max_batch_size=4: no compiler" in str(refused.value)


@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_a_measurement_that_is_not_a_number_never_wins(objective: Literal["throughput", "latency"]):
    broken = trial(8, row(8, math.nan, itl=math.nan))
    good = trial(4, row(4, 10, itl=100))
    assert choose([broken, good], objective, Slo()) is good
    assert "itl_ms_p95" in misses(row(8, 1.0, itl=math.nan), Slo(itl_ms_p95=9))
    with pytest.raises(NoFeasiblePoint, match="no finite figures"):
        choose([broken], objective, Slo())


SPEEDS = st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e3)), min_size=1, max_size=8)


@given(SPEEDS, st.floats(1, 1e3))
def test_the_chosen_trial_is_feasible_and_no_feasible_one_beats_it(figures, limit):
    trials = [trial(n + 1, row(1, speed, ttft=ttft)) for n, (speed, ttft) in enumerate(figures)]
    speeds = [speed for speed, ttft in figures if ttft <= limit]
    if not speeds:
        with pytest.raises(NoFeasiblePoint, match=f"none of {len(trials)} points"):
            choose(trials, "throughput", Slo(ttft_ms_p95=limit))
        return
    best = present(choose(trials, "throughput", Slo(ttft_ms_p95=limit)).measurement)["rows"][0]
    assert best["ttft_ms_p95"] <= limit
    assert best["tokens_per_s"] == max(speeds)


def test_rows_say_of_every_trial_how_it_went():
    trials = [trial(8, row(8, 400, ttft=600)), trial(4, row(4, 200)), trial(64, why="killed")]
    missed, good, failed = trial_rows(trials, "throughput", Slo(ttft_ms_p95=300))
    assert (missed["feasible"], missed["why"]) == (False, "ttft_ms_p95 600")
    assert (good["feasible"], good["tokens_per_s"], good["why"]) == (True, 200, "")
    assert (failed["point"], failed["feasible"], failed["why"]) == ("max_batch_size=64", False, "killed")


def test_a_trial_as_json_holds_everything():
    assert json.loads(json.dumps(trial(8, row(8, 4.0)).as_dict()))["point"] == {"max_batch_size": 8}
