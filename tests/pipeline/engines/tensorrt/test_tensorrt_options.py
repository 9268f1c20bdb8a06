"""`engine.options` is checked against the table of the probed version, and mistakes are explained."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.engines.tensorrt.capabilities import SNAPSHOTS, snapshot, table
from pipeline.engines.tensorrt.descriptions import ELSEWHERE
from pipeline.engines.tensorrt.tensorrt_options import options_model


def refused(options: dict[str, Any], version: str = "0.16.0"):
    """What is said of options that are refused, by place."""
    with pytest.raises(ValidationError) as caught:
        options_model(table(version)).model_validate(options)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_every_model_is_closed_frozen_and_documented(name: str):
    model = options_model(snapshot(name))
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"
    assert all(field.description for field in model.model_fields.values())
    assert model() == model.model_validate(model().model_dump())
    assert not model.model_fields.keys() & ELSEWHERE.keys()


def options(version: str, **values: Any) -> Any:
    """Options of a version: which fields it has is known when its table is read."""
    return options_model(table(version)).model_validate(values)


def test_yaml_is_read_as_people_write_it():
    found: Any = options_model(table("0.16.0")).model_validate(
        {"multiple_profiles": True, "user_buffer": "enable", "use_fused_mlp": False, "gemm_plugin": False,
         "tokens_per_block": 32, "max_num_tokens": "auto", "lora_target_modules": ["attn_q", "attn_v"]}
    )  # fmt: skip
    assert (found.multiple_profiles, found.user_buffer, found.use_fused_mlp) == (
        "enable",
        "enable",
        "disable",
    )
    assert found.gemm_plugin == "disable"
    assert found.model_dump(mode="json")["lora_target_modules"] == ["attn_q", "attn_v"]


def test_a_flag_of_one_version_is_a_switch_of_another():
    flag, switch = (options(version, use_fused_mlp=True) for version in ("0.12.0", "0.13.0"))
    assert (flag.use_fused_mlp, switch.use_fused_mlp) == (True, "enable")


def test_defaults_are_the_versions_own():
    blocks = {version: options(version).tokens_per_block for version in ("0.9.0", "0.16.0", "1.2.0")}
    assert blocks == {"0.9.0": 128, "0.16.0": 64, "1.2.0": 32}
    assert options("0.16.0").use_paged_context_fmha == "disable"
    assert options("1.2.0").use_paged_context_fmha == "enable"


@pytest.mark.parametrize(
    ("version", "options", "said"),
    [
        ("0.16.0", {"builder_opt": 3}, "was removed in TensorRT-LLM 0.14.0.dev2024100800; this toolchain is 0.16.0"),
        ("0.16.0", {"enable_xqa": True}, "was removed in TensorRT-LLM 0.16.0; this toolchain is 0.16.0, 0.8.0 to 0.16.0.dev2024111900 have it"),
        ("0.16.0", {"dora_plugin": True}, "is not in TensorRT-LLM 0.16.0; only 1.2 has it"),
        ("0.10.0", {"reduce_fusion": True}, "is not in TensorRT-LLM 0.10.0; 0.11.0 to 1.2 have it"),
        ("0.16.0", {"gem_plugin": "auto"}, "is no option of trtllm-build; did you mean 'gemm_plugin'?"),
        ("0.16.0", {"zzz": 1}, "is no option of trtllm-build"),
        ("0.16.0", {"max_batch_size": 8}, "is not an option here: give engine.max_batch_size"),
        ("0.16.0", {"max_seq_len": 8}, "is not an option here: give engine.max_seq_len"),
        ("0.11.0", {"tp_size": 2}, "is not an option here: give engine.tp"),
        ("0.16.0", {"tp": 2}, "is not an option here: give engine.tp"),
        ("0.16.0", {"kv_cache": "fp8"}, "is not an option here: it is the recipe's kv_cache"),
        ("0.16.0", {"max_draft_len": 4}, "is not an option here: give speculative.max_draft_len"),
        ("0.16.0", {"workers": 4}, "is not an option here: Enginery chooses it"),
        ("0.16.0", {"output_timing_cache": "x"}, "is not an option here: Enginery keeps a timing cache per key"),
        ("0.16.0", {"enable_chunked_context": True}, "the engine needs use_paged_context_fmha"),
        ("0.16.0", {"lora_dir": ["x"]}, "adapters are given while serving"),
        ("0.16.0", {"paged_kv_cache": True}, "is deprecated in TensorRT-LLM 0.16.0; give kv_cache_type"),
        ("0.16.0", {"tokens_per_block": 48}, "48 is no power of two"),
        ("0.16.0", {"max_beam_width": 257}, "less than or equal to 256"),
        ("0.16.0", {"max_num_tokens": 0}, "greater than or equal to 1, or 'auto'"),
        ("0.16.0", {"max_num_tokens": "8k"}, "valid integer, or 'auto'"),
        ("0.16.0", {"opt_num_tokens": True}, "valid integer, or 'auto'"),
        ("0.14.0.dev2024091000", {"builder_opt": 6}, "Input should be 0, 1, 2, 3, 4 or 5, or 'auto'"),
        ("0.16.0", {"gemm_plugin": "nvfp4"}, "'int32', 'fp8' or 'disable'"),
        ("0.16.0", {"user_buffer": "on"}, "Input should be 'enable' or 'disable'"),
        ("0.16.0", {"strip_plan": "enable"}, "valid boolean"),
        ("0.16.0", {"logits_dtype": "bfloat16"}, "'float16' or 'float32', or 'auto'"),
        ("0.16.0", {"profiling_verbosity": "all"}, "'layer_names_only', 'detailed' or 'none'"),
    ],
)  # fmt: skip
def test_a_mistake_is_explained_where_it_stands(version: str, options: dict[str, Any], said: str):
    ((place, message),) = refused(options, version).items()
    assert place == next(iter(options))
    assert said in message


def test_all_mistakes_are_told_at_once():
    found = refused(
        {"tokens_per_block": 3, "zzz": 1, "max_num_tokens": "x", "lora_target_modules": ["attn_x"]}
    )
    assert found.keys() == {"tokens_per_block", "zzz", "max_num_tokens", "lora_target_modules.0"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemm_plugin", "kv_cache_type", "use_paged_context_fmha", "use_fp8_context_fmha",
    "tokens_per_block", "multiple_profiles", "reduce_fusion", "user_buffer", "gemm_swiglu_plugin", "low_latency_gemm_plugin",
    "weight_streaming", "strip_plan", "lora_plugin", "max_lora_rank", "gather_context_logits", "profiling_verbosity",
    "logits_dtype", "fast_build", "max_num_tokens", "opt_num_tokens"])  # fmt: skip
@pytest.mark.parametrize("version", ["0.16.0", "0.17.0", "1.2.1"])
def test_what_deployments_tune_is_there(name: str, version: str):
    assert name in options_model(table(version)).model_fields
