"""Sizes follow from traffic as TensorRT-LLM's own bench derives them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.tensorrt import profiles
from recipes.schema import Traffic

SIZES = st.integers(1, 1 << 17)
TRAFFIC = st.builds(
    Traffic,
    input_tokens=SIZES,
    output_tokens=SIZES,
    max_input_tokens=st.none() | SIZES,
    concurrency=st.none() | st.integers(1, 4096),
    goal=st.sampled_from(["throughput", "latency"]),
)


@pytest.mark.parametrize(
    ("requests", "prompt", "answer", "steady", "most"),
    [
        (512, 2048, 2048, 1024, 2048),  # bs * (1 + ISL/OSL), at least 2048
        (512, 2048, 512, 2560, 2560),  # a multiple of 256 below 4096
        (900, 2048, 512, 4500, 4608),  # of 512 below 8192
        (2048, 2048, 512, 10240, 10240),  # of 1024 above
        (2048, 2049, 512, 10244, 11264),
        (4096, 32768, 128, 32768, 32768),  # and never more than 32768
    ],
)
def test_tokens_follow_the_steady_state_of_the_traffic(
    requests: int, prompt: int, answer: int, steady: int, most: int
):
    traffic = Traffic(input_tokens=prompt, output_tokens=answer)
    assert profiles.steady_tokens(traffic, requests) == steady
    assert profiles.max_tokens(traffic, requests) == most


@given(TRAFFIC, st.integers(1, 4096), st.integers(2, 1 << 18))
def test_sizes_are_in_their_bounds(traffic, batch, seq_len):
    assert 1 <= profiles.requests(traffic, batch) <= batch
    assert 2048 <= profiles.max_tokens(traffic, batch) <= 32768
    assert profiles.steady_tokens(traffic, batch) <= profiles.max_tokens(traffic, batch)
    assert 1 <= profiles.usual_tokens(traffic, batch) <= profiles.steady_tokens(traffic, batch)
    if not profiles.problems(traffic, batch, seq_len):
        assert 1 <= profiles.longest_prompt(traffic, seq_len) <= seq_len


def test_without_traffic_any_prompt_that_fits_may_come():
    assert profiles.longest_prompt(None, 4096) == 4096
    assert profiles.max_tokens(None, 4096) == 8192
    assert profiles.problems(None, 1, 4) == []


def test_latency_chooses_kernels_for_one_token_per_request():
    traffic = Traffic(input_tokens=2048, output_tokens=512, concurrency=16, goal="latency")
    assert profiles.usual_tokens(traffic, 64) == 16
    assert profiles.usual_tokens(traffic.model_copy(update={"goal": "throughput"}), 64) == 80


def test_traffic_that_the_limits_do_not_serve_is_refused():
    traffic = Traffic(input_tokens=4000, output_tokens=200, concurrency=128)
    length, batch = profiles.problems(traffic, 64, 4096)
    assert length.startswith("engine.max_seq_len: 4096 tokens do not hold")
    assert "raise it to 4200" in length
    assert batch.startswith(
        "engine.max_batch_size: 64 requests at once are fewer than traffic.concurrency 128"
    )
    longest = traffic.model_copy(update={"max_input_tokens": 8192, "concurrency": None})
    assert "raise it to 8193" in profiles.problems(longest, 64, 4096)[0]
    assert profiles.problems(traffic, 128, 4200) == []
