"""From timings to figures."""

import pytest

from pipeline.errors import BuildFailed
from pipeline.measurement import row
from pipeline.runner import Timing


def test_the_figures_of_two_repeats_are_those_computed_by_hand():
    timings = [Timing(ttft_s=0.2, itl_s=[0.1, 0.1, 0.1]), Timing(ttft_s=0.4, itl_s=[0.2, 0.2, 0.2])]
    found = row(4, timings, 1000)
    assert found["tokens_per_s"] == pytest.approx((16 / 0.5 + 16 / 1.0) / 2)
    assert found["tokens_per_s_per_user"] == pytest.approx(6 / 0.9)
    assert (found["ttft_ms_p50"], found["itl_ms_p50"]) == (pytest.approx(300), pytest.approx(150))
    assert found["ttft_ms_p95"] == pytest.approx(390)
    assert found["itl_ms_p95"] == pytest.approx(200)
    assert (found["batch_size"], found["peak_memory_bytes"]) == (4, 1000)


@pytest.mark.parametrize("timings", [[], [Timing(ttft_s=0.1, itl_s=[])]])
def test_nothing_timed_is_refused(timings):
    with pytest.raises(BuildFailed, match="batch 8: nothing was timed"):
        row(8, timings, 0)
