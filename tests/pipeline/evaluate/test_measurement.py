"""Which figures are taken of an engine."""

from typing import Any, NoReturn, cast

import pytest

from pipeline.backend.loaded_engine import LoadedEngine
from pipeline.errors import BuildFailed
from pipeline.evaluate.measurement import FIGURES, measure, within
from pipeline.step.step_parameters import Timing

TIMING = Timing(prompt_len=16, new_tokens=8, repeats=3)
BATCHES = [1, 4]


class SteadyEngine:
    """An engine as fast as its arguments say."""

    figures: tuple[str, ...] = FIGURES

    def score(self, tokens, targets, indices) -> NoReturn:
        raise AssertionError("not asked for")

    def measure(self, batch, prompt_len, new_tokens, repeats) -> dict[str, float]:
        return {name: float(batch * prompt_len * new_tokens * repeats) for name in self.figures} | {
            "extra": 0
        }


def loaded(engine: SteadyEngine) -> LoadedEngine:
    """The engine, which is only measured and need not generate."""
    return cast("LoadedEngine", engine)


def test_every_batch_size_is_a_row_with_all_figures():
    told: list[Any] = []
    found = measure(loaded(SteadyEngine()), BATCHES, TIMING, lambda *event: told.append(event))
    assert (found["prompt_len"], found["new_tokens"], found["repeats"]) == (16, 8, 3)
    assert [row["batch_size"] for row in found["rows"]] == [1, 4]
    assert found["rows"][1] == {"batch_size": 4, **dict.fromkeys(FIGURES, 4.0 * 16 * 8 * 3)}
    assert told == [(0, 2, "batch sizes"), (1, 2, "batch sizes"), (2, 2, "batch sizes")]


def test_a_figure_that_is_not_there_is_a_key_error():
    engine = SteadyEngine()
    engine.figures = FIGURES[:-1]
    with pytest.raises(KeyError, match="peak_memory_bytes"):
        measure(loaded(engine), BATCHES, TIMING, lambda *_: None)


@pytest.mark.parametrize("change", [{"new_tokens": 1}, {"repeats": 0}])
def test_nothing_to_time_is_refused(change: dict[str, Any]):
    with pytest.raises(BuildFailed, match="nothing to time with"):
        measure(loaded(SteadyEngine()), BATCHES, TIMING.model_copy(update=change), lambda *_: None)


@pytest.mark.parametrize(
    ("batch", "length", "expected"),
    [(8, 512, (64, 32, [1, 8])), (1, 512, (64, 32, [1])), (4, 80, (40, 32, [1, 4])), (2, 4, (2, 2, [1, 2]))],
)
def test_an_engine_is_timed_within_its_own_limits(
    batch: int, length: int, expected: tuple[int, int, list[int]]
):
    timing, batch_sizes = within(
        {"max_batch_size": batch, "max_seq_len": length}, Timing(prompt_len=64, new_tokens=32, repeats=3)
    )
    assert (timing.prompt_len, timing.new_tokens, batch_sizes) == expected
    assert timing.prompt_len + timing.new_tokens <= length
