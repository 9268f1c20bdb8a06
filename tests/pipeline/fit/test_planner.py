"""What the planner says of recipes, and which change it names."""

import dataclasses
import json
from typing import Any

import pytest

from pipeline.backend.build_request import BuildRequest
from pipeline.fit import predict
from pipeline.fit.planner import Planner
from pipeline.process.gpus import TARGETS, GpuType
from recipes.precision import Precision
from recipes.schema import Model, Speculative, Traffic
from tests.pipeline.fit.shapes import HOST, LLAMA3_8B, LLAMA3_70B, limits, wanted

EIGHT: dict[str, Any] = {"max_batch_size": 64, "max_seq_len": 8192}
EXTERNAL = Speculative(mode="draft_tokens_external", max_draft_len=5, draft=Model(path="draft"))


def test_an_engine_with_room_fits_and_needs_no_fix():
    found = predict(wanted(LLAMA3_70B, "fp8", kv_cache="fp8", tp=4, **EIGHT), TARGETS["h200"])
    assert (found.verdict, found.reason, found.fix) == ("fits", "", None)
    assert found.largest_batch >= 64
    assert found.kv_tokens >= 64 * 8192


def test_an_engine_that_cannot_serve_its_batch_at_full_length_queues():
    found = predict(wanted(LLAMA3_8B, "fp8", **EIGHT), TARGETS["h100"])
    assert found.verdict == "queues"
    assert 1 <= found.requests < 64
    assert f"{found.requests} requests of 8192 tokens" in found.reason


def test_an_engine_whose_weights_alone_exceed_the_gpu_is_impossible():
    found = predict(wanted(LLAMA3_70B, max_batch_size=1), TARGETS["h100"])
    assert found.verdict == "impossible"
    assert not found.builds
    assert found.largest_batch == found.kv_tokens == 0
    assert "141.1 GB of it weights; the device has 84.9 GB" in found.reason


def test_an_engine_without_room_for_one_long_request_is_impossible():
    found = predict(wanted(LLAMA3_70B, tp=2, max_batch_size=8, max_seq_len=131072), TARGETS["h100"])
    assert found.verdict == "impossible"
    assert found.builds
    assert "one request of 131072 tokens takes 21.5 GB" in found.reason


@pytest.mark.parametrize("name", ["largest_batch", "largest_seq_len"])
def test_the_largest_limit_is_served_and_one_more_is_not(name: str):
    request = wanted(LLAMA3_8B, "fp8", **EIGHT)
    found = predict(request, TARGETS["h100"])
    field = {"largest_batch": "max_batch_size", "largest_seq_len": "max_seq_len"}[name]
    for more, verdict in ((0, "fits"), (1, "queues")):
        value = getattr(found, name) + more
        if name == "largest_seq_len" and more:
            value = getattr(found, name) + 64  # a block more
        engine = request.engine.model_copy(update={field: value})
        assert predict(dataclasses.replace(request, engine=engine), TARGETS["h100"]).verdict == verdict


@pytest.mark.parametrize(
    ("request_", "gpu", "change"),
    [
        (wanted(LLAMA3_8B, "fp8", **EIGHT), "h100", {"kv_cache": "fp8"}),
        # The builder takes an FP8 cache only beside FP8 weights, and an A100 has none.
        (wanted(LLAMA3_8B, "int4_awq", **EIGHT), "a100", {"engine.max_batch_size": 59}),
        (wanted(LLAMA3_8B, max_batch_size=16, max_seq_len=8192), "l4", {"engine.options.max_num_tokens": 4096}),
        (wanted(LLAMA3_70B, tp=2, max_batch_size=8, max_seq_len=131072), "h100", {"engine.tp": 4}),
        (wanted(LLAMA3_70B, tp=8, max_batch_size=8, max_seq_len=98304), "l4", {"format": "fp8"}),
        (wanted(LLAMA3_70B, tp=2, max_seq_len=4096), "l4", {"engine.tp": 4, "format": "int4_awq"}),
        (wanted(LLAMA3_70B, tp=8, pp=2, max_seq_len=131072, max_batch_size=46), "h100", {"engine.target": "b200"}),
    ],
)  # fmt: skip
def test_the_cheapest_change_that_helps_is_named_and_holds(
    request_: BuildRequest, gpu: str, change: dict[str, Any]
):
    found = predict(request_, TARGETS[gpu])
    assert found.fix is not None
    assert found.fix.change == change
    engine = {
        key.removeprefix("engine."): value for key, value in change.items() if key.startswith("engine.")
    }
    options = {
        key.removeprefix("options."): engine.pop(key) for key in list(engine) if key.startswith("options.")
    }
    changed = dataclasses.replace(
        request_,
        engine=request_.engine.model_copy(update={**engine, "options": options}),
        kv_cache=change.get("kv_cache", request_.kv_cache),
        precision=Precision.parse(change["format"]) if "format" in change else request_.precision,
    )
    again = predict(changed, TARGETS[change.get("engine.target", gpu)])
    assert again.verdict == found.fix.verdict
    order = ("impossible", "queues", "fits")
    assert order.index(again.verdict) > order.index(found.verdict)


def test_nothing_is_named_where_nothing_helps():
    small = GpuType(80, 2 << 30, 0, 300)
    assert predict(wanted(LLAMA3_70B, pp=80, max_seq_len=131072), small).fix is not None
    huge = wanted(LLAMA3_70B, tp=8, max_batch_size=4096, max_seq_len=131072)
    assert predict(huge, TARGETS["b200"]).fix is None


def test_a_limit_is_not_lowered_below_half_or_below_the_traffic():
    traffic = Traffic(input_tokens=4000, output_tokens=1000, concurrency=70)
    many: dict[str, Any] = {"max_batch_size": 70, "max_seq_len": 8192}
    plain = predict(wanted(LLAMA3_8B, "int4_awq", **many), TARGETS["a100"]).fix
    bound = predict(wanted(LLAMA3_8B, "int4_awq", traffic=traffic, **many), TARGETS["a100"]).fix
    assert plain is not None
    assert bound is not None
    assert plain.change == {"engine.max_batch_size": 59}
    assert 5000 <= bound.change["engine.max_seq_len"] < 8192


def test_traffic_says_how_many_typical_requests_are_served_at_once():
    traffic = Traffic(input_tokens=1000, output_tokens=200)
    found = predict(wanted(LLAMA3_8B, "fp8", traffic=traffic, **EIGHT), TARGETS["h100"])
    assert found.traffic_requests == found.fullest.kv_pool // (131_072 * 1200)


def test_context_logits_of_every_token_cost_a_tensorrt_engine_memory():
    request = wanted(LLAMA3_8B, "fp8", **EIGHT)
    other = dataclasses.replace(request, engine=request.engine.model_copy(update={"backend": "trtllm_torch"}))
    assert limits(request).logit_rows == 8192
    assert limits(other).logit_rows == 64
    ranks = [Planner(each, TARGETS["h100"]).fit().ranks[0] for each in (request, other)]
    assert ranks[0].buffers - ranks[1].buffers == 4 * (8192 - 64) * 128256


def test_pipeline_stages_hold_their_layers_and_the_last_the_logits():
    found = predict(wanted(LLAMA3_70B, "fp8", tp=2, pp=2, **EIGHT), TARGETS["h100"])
    first, last = found.ranks[0], found.ranks[-1]
    assert [rank.rank for rank in found.ranks] == [0, 1, 2, 3]
    assert first.kv_per_token == last.kv_per_token == 40 * 2 * 4 * 128 * 2
    assert first.activations < last.activations
    assert first.buffers < last.buffers


def test_more_ranks_than_key_heads_repeat_them():
    many = dataclasses.replace(LLAMA3_8B, num_kv_heads=2)
    two, four = (predict(wanted(many, "fp8", tp=tp, **EIGHT), TARGETS["h100"]) for tp in (2, 4))
    assert two.ranks[0].kv_per_token == four.ranks[0].kv_per_token


def test_layers_with_a_window_hold_no_more_than_it():
    windows = tuple(1024 if layer % 2 else None for layer in range(32))
    whole = predict(wanted(LLAMA3_8B, "fp8", **EIGHT), TARGETS["h100"]).ranks[0]
    half = predict(
        wanted(dataclasses.replace(LLAMA3_8B, windows=windows), "fp8", **EIGHT), TARGETS["h100"]
    ).ranks[0]
    assert half.kv_per_request / whole.kv_per_request == (8192 + 1024) / (2 * 8192)


def test_a_draft_model_takes_weights_and_keys_of_its_own():
    alone = predict(wanted(LLAMA3_70B, "fp8", tp=4, **EIGHT), TARGETS["h100"]).ranks[0]
    pair = predict(
        wanted(LLAMA3_70B, "fp8", tp=4, speculative=EXTERNAL, draft=LLAMA3_8B, **EIGHT), TARGETS["h100"]
    ).ranks[0]
    assert pair.kv_per_token - alone.kv_per_token == 32 * 2 * 2 * 128 * 2
    assert pair.draft > 16e9 / 4
    assert alone.draft == 0


def test_the_twin_that_is_scored_has_to_be_built_too():
    engine: dict[str, Any] = {"backend": "tensorrt", "target": "h100", "tp": 4, **EIGHT}
    asked = wanted(LLAMA3_70B, "fp8", speculative=EXTERNAL, draft=LLAMA3_8B, **engine)
    alone = predict(wanted(LLAMA3_70B, "fp8", **engine), TARGETS["h100"])
    pair = predict(asked, TARGETS["h100"])
    assert pair.ranks[0].activations < alone.ranks[0].activations
    assert pair.build_gpu_bytes == alone.build_gpu_bytes


@pytest.mark.parametrize(
    ("mode", "least", "layers"), [("lookahead_decoding", 0, 0), ("medusa", 4e9, 0), ("eagle", 7.5e9, 1)]
)
def test_heads_that_propose_tokens_take_memory(mode: Any, least: float, layers: int):
    spec = Speculative(mode=mode, max_draft_len=8)
    alone, pair = (
        predict(wanted(LLAMA3_8B, "fp8", speculative=each, **EIGHT), TARGETS["h100"]).ranks[0]
        for each in (None, spec)
    )
    assert least <= pair.draft < least + 1e9
    assert pair.kv_per_token - alone.kv_per_token == layers * 2 * 8 * 128 * 2


def test_heads_that_were_read_take_what_they_hold():
    spec = Speculative(mode="medusa", max_draft_len=8)
    asked = wanted(LLAMA3_8B, "fp8", tp=2, speculative=spec, **EIGHT)
    known = predict(dataclasses.replace(asked, heads_bytes=3_000_000_001), TARGETS["h100"])
    assert known.ranks[1].draft == 1_500_000_001


def test_a_speculative_engine_has_room_for_what_is_proposed():
    spec = Speculative(mode="lookahead_decoding", max_draft_len=10)
    sizes = limits(wanted(LLAMA3_8B, "fp8", speculative=spec, max_batch_size=2048, max_seq_len=512))
    assert sizes.seq_len == 522
    assert sizes.num_tokens == 2048 * 11
    assert sizes.logit_rows == 2048 * 11


def test_backend_aoti_is_planned_in_the_memory_of_the_host():
    request = wanted(
        LLAMA3_8B, "int4_awq", backend="aoti", target="host", tp=2, max_batch_size=4, max_seq_len=2048
    )
    host = GpuType(0, HOST.memory_bytes, 0, 20)
    found = predict(request, host)
    assert found.verdict == "fits"
    assert sum(rank.room for rank in found.ranks) == HOST.memory_bytes
    assert found.build_gpu_bytes == 0
    assert predict(request, dataclasses.replace(host, memory_bytes=6 << 30)).verdict == "impossible"


def test_a_fit_is_json():
    found = predict(wanted(LLAMA3_8B, "fp8", **EIGHT), TARGETS["h100"])
    assert json.loads(json.dumps(found.as_dict()))["fix"]["change"] == {"kv_cache": "fp8"}
