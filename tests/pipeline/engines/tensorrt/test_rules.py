"""Every silent rewrite of `trtllm-build`, applied by us first and said; the source is named at each."""

from typing import Any

import pytest

from pipeline.engines.tensorrt.capabilities import SNAPSHOTS, snapshot
from pipeline.engines.tensorrt.engine_settings import EngineSettings
from pipeline.engines.tensorrt.sheet import AT_BUILD
from pipeline.models.config_json import read_shape
from recipes.schema import Speculative, Traffic
from tests.pipeline.engines.tensorrt.asked import CONFIG, EAGLE, EXTERNAL, LOOKAHEAD, TRAFFIC, built, said

OLD, LATE = "0.16.0", "1.2.1"


@pytest.mark.parametrize("version", SNAPSHOTS)
def test_every_option_of_the_table_has_a_value_but_where_it_says_how_to_run(version: str):
    options = {option.name for option in snapshot(version).options.values() if not option.deprecated}
    assert built(version).keys() == {"table", *options} - set(AT_BUILD)


@pytest.mark.parametrize("version", SNAPSHOTS)
@pytest.mark.parametrize("traffic", [None, TRAFFIC])
def test_nothing_is_left_open(version: str, traffic: Traffic | None):
    found = built(version, traffic=traffic)
    plugins = {name for name, option in snapshot(version).options.items() if "auto" in option.choices}
    assert not [name for name, value in found.items() if value == "auto" and name not in plugins]
    assert found["gather_context_logits"] is True


def twin_of(param):
    """The key's settings of the twin that is scored."""
    return EngineSettings.parse(param).scored_twin().as_param()


def test_the_recipes_limits_are_the_settings():
    found = built(engine={"max_batch_size": 32, "max_seq_len": 2048})
    assert (found["max_batch_size"], found["max_seq_len"]) == (32, 2048)
    assert (built("0.11.0", engine={"tp": 2, "pp": 2})["tp_size"]) == 2


# _init_max_seq_len: "max_input_len is larger than max_seq_len, clipping it"
def test_max_input_len_is_clipped_to_max_seq_len():
    assert built(options={"max_input_len": 5000})["max_input_len"] == 4096
    assert "max_input_len: 4096 instead of 5000, because engine.max_seq_len is 4096" in said(
        options={"max_input_len": 5000}
    )
    assert built(options={"max_input_len": 100})["max_input_len"] == 100


def test_max_input_len_follows_from_traffic():
    assert built(traffic=TRAFFIC)["max_input_len"] == 3000
    assert built(traffic=Traffic(input_tokens=100, output_tokens=96))["max_input_len"] == 4000
    assert built()["max_input_len"] == 4096


# Before 0.11 max_seq_len is the sum of max_input_len and max_output_len
@pytest.mark.parametrize("version", ["0.8.0", "0.9.0", "0.10.0"])
def test_old_versions_get_max_seq_len_as_a_sum(version: str):
    found = built(version, traffic=TRAFFIC)
    assert "max_seq_len" not in found
    assert (found["max_input_len"], found["max_output_len"]) == (3000, 1096)
    found = built(version)
    assert (found["max_input_len"], found["max_output_len"]) == (4095, 1)
    assert built("0.11.0")["max_output_len"] is None


# check_max_num_tokens: "max_num_tokens shouldn't be greater than max_seq_len * max_batch_size"
def test_max_num_tokens_is_clipped_to_what_all_requests_can_bring():
    small = {"max_batch_size": 1, "max_seq_len": 512}
    assert built(engine=small)["max_num_tokens"] == 512
    assert "max_num_tokens: 512 instead of 8192" in said(engine=small)


# check_max_num_tokens: "should be at least tokens_per_block"
def test_max_num_tokens_is_at_least_one_block():
    assert built(options={"max_num_tokens": 16, "use_paged_context_fmha": True})["max_num_tokens"] == 64
    assert built(LATE, {"max_num_tokens": 16})["max_num_tokens"] == 32


# check_max_num_tokens: "When enable_context_fmha is not turned on ... at least max_input_len"
def test_without_context_fmha_a_prompt_has_to_fit():
    options = {"context_fmha": False, "max_num_tokens": 1024}
    assert built(options=options)["max_num_tokens"] == 4096
    assert "without context_fmha a prompt has to fit" in said(options=options)


# check_max_num_tokens: "remove_input_padding is not enabled, the specified max_num_tokens ... will be ignored"
def test_with_padding_every_request_takes_its_longest():
    assert (
        built(options={"remove_input_padding": False, "max_num_tokens": 1024})["max_num_tokens"] == 64 * 4096
    )


def test_prompts_that_are_not_read_in_chunks_have_to_fit():
    long = {"max_seq_len": 16384}
    assert built(OLD, engine=long)["max_num_tokens"] == 16384
    assert "prompts are not read in chunks" in said(OLD, engine=long)
    assert built(LATE, engine=long)["max_num_tokens"] == 8192  # paged context attention is on there


# check_max_num_tokens: opt_num_tokens = min(max_batch_size * max_beam_width, max_num_tokens)
def test_opt_num_tokens_is_a_token_per_request_and_beam():
    assert built()["opt_num_tokens"] == 64
    assert built(options={"max_beam_width": 4})["opt_num_tokens"] == 256
    assert built(options={"max_num_tokens": 4096}, engine={"max_batch_size": 8192})["opt_num_tokens"] == 4096


# check_max_num_tokens: "opt_num_tokens shouldn't be greater than max_num_tokens"
def test_opt_num_tokens_is_clipped():
    options = {"opt_num_tokens": 9000, "max_num_tokens": 8192}
    assert built(options=options)["opt_num_tokens"] == 8192
    assert "opt_num_tokens: 8192 instead of 9000, because max_num_tokens is no more" in said(options=options)


# commands/build.py: multiple_profiles and opt_num_tokens are not supposed to work at the same time
def test_traffic_switches_several_profiles_on_in_the_place_of_one_optimum():
    found = built(traffic=TRAFFIC)
    assert (found["multiple_profiles"], found["opt_num_tokens"]) == ("enable", None)
    assert built()["multiple_profiles"] == "disable"
    found = built(options={"opt_num_tokens": 100}, traffic=TRAFFIC)
    assert (found["multiple_profiles"], found["opt_num_tokens"]) == ("disable", 100)
    found = built(options={"multiple_profiles": False}, traffic=TRAFFIC)
    assert (found["multiple_profiles"], found["opt_num_tokens"]) == ("disable", 160)  # 32 * (1 + 2048 / 512)


def test_max_num_tokens_follows_from_traffic():
    busy = Traffic(input_tokens=2048, output_tokens=128, max_input_tokens=2048)
    found = built(LATE, traffic=busy, engine={"max_batch_size": 256})
    assert found["max_num_tokens"] == 4608  # 256 * 17 = 4352, a multiple of 512
    assert "max_num_tokens: 4608, because traffic says so" in said(
        LATE, traffic=busy, engine={"max_batch_size": 256}
    )


# commands/build.py: "avoid ValueError if not supported quantization is chosen with use_fused_mlp"
@pytest.mark.parametrize(("fmt", "left"), [("none", True), ("fp8", True), ("int4_awq", False), ("int8_sq", False),
    ("w4a8_awq", False), ("fp8_rowwise", False), ({"default": "fp8", "except": {"*.0.*": "int4_awq"}}, True)])  # fmt: skip
def test_use_fused_mlp_stays_on_for_formats_that_fuse(fmt, left: bool):
    assert (built(format=fmt)["use_fused_mlp"] == "enable") is left
    assert built("0.12.0", {"use_fused_mlp": True}, format=fmt)["use_fused_mlp"] is left
    assert ("have no fused form" in said(format=fmt)) is not left


# builder.build: "Overriding reduce_fusion to False", "Overriding user_buffer to False"
def test_reduce_fusion_needs_several_ranks_of_a_llama():
    both = {"reduce_fusion": True, "user_buffer": True}
    found = built(options=both)
    assert (found["reduce_fusion"], found["user_buffer"]) == ("disable", "disable")
    assert "user_buffer: disable instead of enable, because it needs reduce_fusion" in said(options=both)
    found = built(options=both, engine={"tp": 2}, format="fp8")
    assert (found["reduce_fusion"], found["user_buffer"]) == ("enable", "enable")
    mistral = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}
    assert built(options=both, engine={"tp": 2}, config=mistral)["reduce_fusion"] == "disable"


# builder.build (1.0 on): "Overriding norm_quant_fusion to False" unless NVFP4
def test_norm_quant_fusion_is_for_a_format_that_is_not_built():
    assert built(LATE, {"norm_quant_fusion": True})["norm_quant_fusion"] == "disable"


# builder.build: quant_algo or kv_cache_quant_algo FP8: strongly_typed = True
def test_fp8_is_strongly_typed():
    assert built("0.10.0", format="fp8")["strongly_typed"] is True
    assert built("0.10.0", kv_cache="fp8")["strongly_typed"] is True
    assert built("0.10.0")["strongly_typed"] is False


# builder.build: "FP8 Context FMHA is enabled ... to support FP8 Paged Context FMHA"
@pytest.mark.parametrize("version", [OLD, LATE])
def test_paged_context_attention_over_an_fp8_cache_is_in_fp8(version: str):
    options = {"use_paged_context_fmha": True, "use_fp8_context_fmha": False}
    assert built(version, options, format="fp8", kv_cache="fp8")["use_fp8_context_fmha"] == "enable"
    assert (
        built(OLD, {"use_paged_context_fmha": False}, format="fp8", kv_cache="fp8")["use_fp8_context_fmha"]
        == "disable"
    )


# optimize_model_with_config: use_fp8_context_fmha only takes effect with FP8; W4A8_AWQ from 0.17 on
def test_fp8_context_attention_needs_fp8_weights():
    on = {"use_fp8_context_fmha": True}
    assert built(OLD, on)["use_fp8_context_fmha"] == "disable"
    assert built(OLD, on, format="fp8")["use_fp8_context_fmha"] == "enable"
    assert built(OLD, on, format="w4a8_awq")["use_fp8_context_fmha"] == "disable"
    assert built("0.17.0", on, format="w4a8_awq")["use_fp8_context_fmha"] == "enable"


# builder.build from 1.0 on, one line per branch
@pytest.mark.parametrize(
    ("options", "changes", "paged", "fp8"),
    [
        ({}, {}, "enable", "disable"),  # not FP8
        ({}, {"format": "fp8"}, "enable", "disable"),  # paged, and no FP8 cache
        ({}, {"format": "fp8", "kv_cache": "fp8"}, "enable", "enable"),
        ({}, {"kv_cache": "fp8"}, "disable", "disable"),  # FP8 cache, and no FP8 weights
        ({}, {"kv_cache": "int8"}, "disable", "disable"),
        ({}, {"format": "fp8", "kv_cache": "int8"}, "disable", "disable"),
        ({"context_fmha": False}, {"format": "fp8", "kv_cache": "fp8"}, "disable", "disable"),
        ({"use_paged_context_fmha": False}, {"format": "fp8"}, "disable", "enable"),
        (
            {"use_paged_context_fmha": False},
            {"format": "fp8", "engine": {"target": "a100"}},
            "disable",
            "disable",
        ),
    ],
)
def test_late_builders_turn_attention_features_off(
    options: dict[str, Any], changes: dict[str, Any], paged: str, fp8: str
):
    found = built(LATE, options, **changes)
    assert (found["use_paged_context_fmha"], found["use_fp8_context_fmha"]) == (paged, fp8)


# builder.build: "Paged Context FMHA is disabled because StreamingLLM is not supported"
def test_streamingllm_turns_paged_context_attention_off():
    assert (
        built(OLD, {"streamingllm": True, "use_paged_context_fmha": True})["use_paged_context_fmha"]
        == "disable"
    )


# builder.build: nccl_plugin = dtype if world_size > 1 else None
def test_the_nccl_plugin_follows_the_number_of_ranks():
    assert built()["nccl_plugin"] == "disable"
    assert built(engine={"pp": 2})["nccl_plugin"] == "bfloat16"
    assert "nccl_plugin: bfloat16, because 2 ranks exchange bfloat16" in said(engine={"tp": 2})
    assert "nccl_plugin" not in built("0.9.0")


# facts of 0.8 to 0.10: plugins have no auto there, and float16 as default
@pytest.mark.parametrize("version", ["0.8.0", "0.9.0", "0.10.0"])
def test_plugins_without_auto_compute_in_the_models_type(version: str):
    assert built(version)["gpt_attention_plugin"] == "bfloat16"
    assert built(version, {"gpt_attention_plugin": "float32"})["gpt_attention_plugin"] == "float32"
    assert built(version, {"gpt_attention_plugin": False})["gpt_attention_plugin"] == "disable"
    assert built(version)["gemm_plugin"] == "disable"
    assert built("0.11.0")["gpt_attention_plugin"] == "auto"


# PluginConfig.set_fp8_rowwise_quant_plugins(model dtype)
def test_the_rowwise_plugin_follows_the_format():
    assert built(format="fp8_rowwise")["fp8_rowwise_gemm_plugin"] == "bfloat16"
    assert built(format="fp8")["fp8_rowwise_gemm_plugin"] == "disable"


def test_logits_have_the_checkpoints_type_unless_another_is_asked_for():
    assert built()["logits_dtype"] == "float32"
    assert built(options={"logits_dtype": "float16"})["logits_dtype"] == "float16"


# commands/build.py: gather_all_token_logits sets both
def test_all_token_logits_are_both():
    assert built(options={"gather_all_token_logits": True})["gather_generation_logits"] is True


# builder.build: "max_num_tokens is smaller than max_batch_size * (max_draft_len + 1)"
def test_draft_tokens_of_all_requests_have_to_fit():
    found = built(options={"max_num_tokens": 64}, speculative=LOOKAHEAD)
    assert found["max_num_tokens"] == 64 * 8
    assert (found["speculative_decoding_mode"], found["max_draft_len"]) == ("lookahead_decoding", 7)
    assert found["max_seq_len"] == 4096  # the builder itself adds max_draft_len


# commands/build.py: "Gather context logits is not support with draft len > 0"
def test_a_speculative_engine_is_scored_by_a_twin():
    found = built(speculative=LOOKAHEAD)
    assert found["gather_context_logits"] is False
    assert "gather_context_logits: off instead of on, because trtllm-build refuses" in said(
        speculative=LOOKAHEAD
    )
    twin = twin_of(found)
    assert twin["gather_context_logits"] is True
    assert (twin["max_draft_len"], twin["speculative_decoding_mode"]) == (0, None)
    changed = {name for name in found if found[name] != twin[name]}
    assert changed == {"gather_context_logits", "max_draft_len", "speculative_decoding_mode"}
    assert twin_of(built()) == built()


# facts of 0.16: eagle forces paged context FMHA; a target with a draft model reuses the cache
@pytest.mark.parametrize("asked", [EXTERNAL, EAGLE])
def test_drafts_are_verified_over_the_paged_cache(asked: Speculative):
    assert built(speculative=asked)["use_paged_context_fmha"] == "enable"
    assert f"speculative.mode {asked.mode} needs it" in said(speculative=asked)
    assert built(speculative=LOOKAHEAD)["use_paged_context_fmha"] == "disable"


def test_a_draft_model_is_built_to_match_its_target():
    small = read_shape(CONFIG | {"num_hidden_layers": 4})
    found = built(
        options={"tokens_per_block": 32}, format="fp8", kv_cache="fp8", speculative=EXTERNAL, draft=small
    )
    draft = found["draft"]
    assert draft.keys() == found.keys() - {"draft"}
    same = (
        "table",
        "tokens_per_block",
        "use_paged_context_fmha",
        "kv_cache_type",
        "max_batch_size",
        "max_seq_len",
    )
    assert {name: draft[name] for name in same} == {name: found[name] for name in same}
    assert (draft["max_draft_len"], draft["speculative_decoding_mode"]) == (0, None)
    assert found["use_fp8_context_fmha"] == "enable"
    assert draft["use_fp8_context_fmha"] == "disable"
    assert draft["gather_context_logits"] is False
    assert "draft" not in built(speculative=LOOKAHEAD)
    assert "draft" not in twin_of(found)


def test_every_change_has_one_note_and_no_change_none():
    notes = said(LATE, options={"max_input_len": 4096, "max_num_tokens": 8192, "opt_num_tokens": 64, "logits_dtype": "float32",
        "multiple_profiles": False, "use_fp8_context_fmha": False, "nccl_plugin": "disable"})  # fmt: skip
    assert notes == ""
