"""Backend trtllm_torch before anything is built: options by version, settings, refusals, stale findings."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from pipeline import engines
from pipeline.backend.build_request import BuildRequest
from pipeline.engines.trtllm_torch import autotuner
from pipeline.engines.trtllm_torch.llm_options import table_of, tables, versions_with
from pipeline.engines.trtllm_torch.torch_settings import passed
from pipeline.models.config_json import read_shape
from pipeline.process.host import Gpu, Host
from pipeline.toolchains.toolchain import Choice, Toolchain
from recipes.precision import Precision
from recipes.schema import Engine, Model, Speculative, Traffic
from tests.present import present

BACKEND = engines.backend("trtllm_torch")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 8192,
}  # fmt: skip
NAMES = {80: "NVIDIA A100-SXM4-80GB", 89: "NVIDIA L40S", 90: "NVIDIA H100 80GB HBM3", 100: "NVIDIA B200"}
DRAFT = Model(repo="a/b", revision="0" * 40)


def wanted(version="1.2.0", sm=90, fmt="none", options=None, **changes) -> BuildRequest:
    """What a recipe asks; `changes` are fields of its engine, else of the request."""
    fields = {name: changes.pop(name) for name in Engine.model_fields.keys() & changes.keys()}
    gpus = (Gpu(NAMES.get(sm, "NVIDIA GPU"), sm, 81559 << 20, "550.54.15"),) * 2
    chain = Toolchain(name="path", kind="path", location="/opt/bin", versions={"tensorrt_llm": version})
    given: dict[str, Any] = {
        "engine": Engine(backend="trtllm_torch", options=options or {}, **fields),
        "shape": read_shape(CONFIG),
        "precision": Precision.parse(fmt),
        "kv_cache": "auto",
        "host": Host(gpus=gpus, cpu="avx2", cores=2, memory_bytes=1 << 34, tools={}),
        "choice": Choice(toolchain=chain),
    }
    return BuildRequest(**(given | changes))


def mistakes(options: dict[str, Any], version: str = "1.2.0"):
    """Path -> message of everything that is wrong with options."""
    with pytest.raises(ValidationError) as caught:
        BACKEND.options(wanted(version)).model_validate(options)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


def test_every_table_says_where_it_is_from_and_names_its_nested_configurations():
    assert list(tables()) == ["1.0", "1.1", "1.2", "1.3"]
    for table in tables().values():
        every = [table.options, *table.configs.values(), *table.speculative.values()]
        nested = {option.config for options in every for option in options.values() if option.config}
        assert nested == table.configs.keys()
        assert {"kv_cache_config", "cuda_graph_config", "enable_autotuner"} < table.options.keys()
        assert all(
            option.choices for options in every for option in options.values() if option.type == "choice"
        )
    assert present(table_of("1.3.0rc15")).version == "1.3"
    assert present(table_of("1.2.1")).version == "1.2"
    assert table_of("1.4.0rc1") is None
    assert versions_with("enable_mixed_sampler") == ["1.0"]


def test_an_unknown_key_names_the_nearest_one_and_the_versions_that_have_it():
    assert mistakes({"attn_backand": "TRTLLM"}) == {
        "attn_backand": "is no key of TensorRT-LLM 1.2; did you mean 'attn_backend'?"
    }
    assert mistakes({"enable_mixed_sampler": True})["enable_mixed_sampler"].startswith(
        "is no key of TensorRT-LLM 1.2, but of 1.0"
    )
    assert mistakes({"kv_cache_config": {"free_gpu_mem_fraction": 0.5}}) == {
        "kv_cache_config.free_gpu_mem_fraction": "is no key of TensorRT-LLM 1.2; "
        "did you mean 'free_gpu_memory_fraction'?"
    }
    assert mistakes({"kv_cache_config": {"max_util_for_resume": 0.5}})[
        "kv_cache_config.max_util_for_resume"
    ].startswith("is no key of TensorRT-LLM 1.2, but of 1.3")


def test_all_mistakes_are_told_at_once_each_at_its_place():
    found = mistakes(
        {
            "max_num_tokens": "many",
            "print_iter_log": 1,
            "cuda_graph_config": {"batch_sizes": 4},
            "moe_config": {"backend": "FAST"},
            "scheduler_config": "GUARANTEED_NO_EVICT",
            "speculative_config": {"decoding_type": "NGram", "max_ngram": 2},
        }
    )
    assert found == {
        "max_num_tokens": "must be of type int",
        "print_iter_log": "must be of type bool",
        "cuda_graph_config.batch_sizes": "must be of type list",
        "moe_config.backend": "must be one of AUTO, CUTLASS, CUTEDSL, WIDEEP, TRTLLM, DEEPGEMM, VANILLA, TRITON",
        "scheduler_config": "must be a mapping",
        "speculative_config.max_ngram": "is no key of TensorRT-LLM 1.2",
    }
    [(place, told)] = mistakes({"speculative_config": {"decoding_type": "ngram"}}).items()
    assert (place, told.split(" in ")[1]) == ("speculative_config.decoding_type", "1.2")


def test_what_the_recipe_says_elsewhere_is_pointed_to():
    found = mistakes({"tensor_parallel_size": 2, "kv_cache_config": {"dtype": "fp8"}, "backend": "pytorch"})
    assert found == {
        "tensor_parallel_size": "is set by the recipe; use engine.tp",
        "kv_cache_config.dtype": "is set by the recipe; use kv_cache",
        "backend": "is set by Enginery; leave it out",
    }
    assert "checkpoint_loader" in mistakes({"checkpoint_loader": None}, "1.1.0")


def test_settings_say_every_size_and_keep_the_recipes_own_keys():
    options = {
        "kv_cache_config": {"free_gpu_memory_fraction": 0.8},
        "cuda_graph_config": None,
        "stream_interval": 4,
    }
    asked = wanted(options=options, max_batch_size=64, max_seq_len=4096, tp=2, pp=1)
    settings = BACKEND.settings(asked)
    assert list(settings) == sorted(settings)
    assert settings | {
        "tensor_parallel_size": 2, "pipeline_parallel_size": 1, "max_batch_size": 64, "max_seq_len": 4096,
        "max_num_tokens": 8192, "enable_chunked_prefill": False, "stream_interval": 4,
        "cuda_graph_config": None, "enable_autotuner": True, "attn_backend": "TRTLLM",
    } == settings  # fmt: skip
    assert settings["kv_cache_config"] == {
        "dtype": "auto", "enable_block_reuse": True, "enable_partial_reuse": True,
        "free_gpu_memory_fraction": 0.8, "tokens_per_block": 32,
    }  # fmt: skip
    assert settings["moe_config"] is None
    assert passed(settings).keys() < settings.keys()
    assert passed(settings)["cuda_graph_config"] is None
    assert "moe_config" not in passed(settings)
    assert json.loads(json.dumps(settings)) == settings
    assert BACKEND.settings(wanted(kv_cache="fp8"))["kv_cache_config"]["dtype"] == "fp8"
    assert "tokens_per_block" not in BACKEND.settings(wanted("1.0.0"))["kv_cache_config"]


def test_settings_pass_no_prototype_that_nobody_asked_for():
    kept = passed(BACKEND.settings(wanted())).keys() - {"enable_autotuner", "scheduler_config"}
    status = {name: option.status for name, option in tables()["1.2"].options.items()}
    assert {status.get(name, "stable") for name in kept} <= {"stable", "beta"}
    assert BACKEND.settings(wanted(options={"print_iter_log": True}))["print_iter_log"] is True


def test_long_prompts_pass_in_chunks_and_the_plan_says_so():
    long = wanted(max_batch_size=1, max_seq_len=8192, options={"max_num_tokens": 2048})
    assert BACKEND.settings(long)["enable_chunked_prefill"] is True
    [note] = BACKEND.notes(long)
    assert note.startswith("enable_chunked_prefill: on, because prompts of up to 8191 tokens do not fit")
    short = wanted(
        max_batch_size=1, max_seq_len=8192, options={"max_num_tokens": 2048}, traffic=Traffic(input_tokens=9, output_tokens=9, max_input_tokens=2048)
    )  # fmt: skip
    assert BACKEND.settings(short)["enable_chunked_prefill"] is False
    assert BACKEND.notes(short) == []


@pytest.mark.parametrize(
    ("largest", "usual", "sizes"),
    [
        (8, None, [1, 2, 4, 8]),
        (3, None, [1, 2, 3]),
        (256, 48, [1, 2, 4, 8, 16, 32, 36, 48, 60, 64, 128, 256]),
        (64, 100, [1, 2, 4, 8, 16, 32, 64]),
        (1, 1, [1]),
    ],
)
def test_cuda_graphs_are_dense_about_the_usual_batch(largest: int, usual: int | None, sizes: list[int]):
    traffic = Traffic(input_tokens=8, output_tokens=8, concurrency=usual) if usual else None
    settings = BACKEND.settings(wanted(max_batch_size=largest, traffic=traffic))
    assert settings["cuda_graph_config"]["batch_sizes"] == sizes


@pytest.mark.parametrize(
    ("fmt", "sm", "served"),
    [
        ("none", 80, True), ("int4_awq", 80, True), ("fp8", 80, False), ("w4a8_awq", 89, True), ("fp8_rowwise", 89, False),
        ("fp8_rowwise", 90, True), ("fp8", 100, True), ("int4_awq", 100, False), ("fp8", 75, False),
        ("int8_sq", 90, False), ("int8_wo", 90, False), ("int4_wo", 90, False),
    ],
)  # fmt: skip
def test_formats_are_those_of_the_hardware_matrix(fmt: str, sm: int, served: bool):
    reasons = BACKEND.reasons(wanted(fmt=fmt, sm=sm))
    assert (reasons == []) is served
    assert all(reason.startswith(("format: ", "engine.target: ")) for reason in reasons)


def test_what_the_pytorch_backend_does_not_serve_is_refused():
    def only(**changes) -> str:
        [reason] = BACKEND.reasons(wanted(**changes))
        return reason

    assert only(version="0.21.0").startswith("engine.toolchain: TensorRT-LLM 0.21.0 has no PyTorch backend")
    assert only(version="1.4.0rc1").endswith("choose a toolchain of 1.0, 1.1, 1.2, 1.3")
    assert only(kv_cache="int8").startswith("kv_cache: int8 is not in the hardware matrix")
    assert only(fmt={"default": "fp8", "except": {"*.down_proj": "none"}}).startswith(
        "format: fp8 with exceptions"
    )
    lookahead = Speculative(mode="lookahead_decoding", max_draft_len=4)
    assert only(speculative=lookahead).startswith("speculative.mode: lookahead_decoding is served by built")
    assert only(max_batch_size=64, options={"max_num_tokens": 32}).startswith(
        "engine.options.max_num_tokens: 32 is less than one step of 64 tokens takes"
    )
    assert only(max_seq_len=4096, options={"max_num_tokens": 64, "enable_chunked_prefill": False}).startswith(
        "engine.options.enable_chunked_prefill: prompts of 4095 tokens do not fit"
    )


@pytest.mark.parametrize(("version", "kind"), [("1.1.0", "DraftTarget"), ("1.2.0", "Draft_Target")])
def test_a_draft_model_is_named_as_the_version_names_it(version: str, kind: str):
    speculative = Speculative(mode="draft_tokens_external", max_draft_len=3, draft=DRAFT)
    settings = BACKEND.settings(wanted(version, speculative=speculative, max_batch_size=4000))
    assert settings["speculative_config"] == {
        "decoding_type": kind, "max_draft_len": 3, "speculative_model_dir": "draft"
    }  # fmt: skip
    assert settings["max_num_tokens"] == 16000


def test_what_the_host_lacks_is_said():
    assert BACKEND.missing(wanted()) is None
    none = wanted(choice=Choice(problem="no TensorRT-LLM here"))
    assert present(BACKEND.missing(none)).endswith("1.0 or newer: no TensorRT-LLM here")
    assert cast("Any", BACKEND.options(none)).version == "1.3"
    assert "needs 4 NVIDIA GPU(s)" in present(BACKEND.missing(wanted(tp=4)))
    assert "needs 1 h200 GPU(s) here" in present(BACKEND.missing(wanted(target="h200")))


IDENTITY = {"gpu": "NVIDIA H100", "sm": 90, "tensorrt_llm": "1.2.0", "world_size": 2, "key": "abc"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, ""),
        ({"gpu": "NVIDIA H200"}, "GPU is NVIDIA H200, they were made on NVIDIA H100"),
        ({"sm": 100}, "compute capability is 100, they were made on 90"),
        ({"tensorrt_llm": "1.2.1"}, "TensorRT-LLM differ: 1.2.0 then, 1.2.1 now"),
        ({"world_size": 1, "key": "x"}, "number of ranks differ: 2 then, 1 now; model and options differ: abc then, x now"),
    ],
)  # fmt: skip
def test_findings_of_another_identity_are_stale(change, told: str):
    assert autotuner.stale(IDENTITY, IDENTITY | change) == told


def test_a_cache_must_have_every_rank_in_either_layout(tmp_path: Path):
    assert autotuner.usable(tmp_path, 2).startswith("the warm-up wrote no cache")
    (tmp_path / "autotuner_cache.rank0.json").write_text("{}")
    assert autotuner.usable(tmp_path, 2) == "no file of rank 1"
    (tmp_path / "autotuner_cache.rank1.json").write_text("{}")
    assert autotuner.usable(tmp_path, 2) == ""
    (tmp_path / autotuner.FILE).write_text('{"metadata": {}, "rank_0": {}}')
    assert autotuner.usable(tmp_path, 2) == "autotuner_cache.json has no rank_1"


def test_only_findings_of_the_same_identity_are_offered(tmp_path: Path):
    assert autotuner.offered(None, IDENTITY) == "there are none"
    (tmp_path / autotuner.FILE).write_text('{"metadata": {}, "rank_0": {}, "rank_1": {}}')
    assert autotuner.offered(tmp_path, IDENTITY) == "there are none"
    (tmp_path / autotuner.IDENTITY).write_text(json.dumps(IDENTITY))
    assert autotuner.offered(tmp_path, IDENTITY) == ""
    assert autotuner.offered(tmp_path, IDENTITY | {"sm": 89}).startswith("compute capability is 89")
