"""Every combination that cannot be built is refused before the build, with the field to change."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline import engines
from pipeline.engines.tensorrt.support import ALGORITHMS, FAMILIES, algorithm
from pipeline.models.config_json import read_shape
from pipeline.models.shape import Experts
from pipeline.process.host import Gpu
from pipeline.toolchains.toolchain import Choice
from recipes.precision import Precision
from recipes.schema import Speculative, Traffic
from tests.pipeline.engines.tensorrt.asked import CONFIG, EAGLE, EXTERNAL, LOOKAHEAD, host, wanted
from tests.present import present

OLD, LATE = "0.16.0", "1.2.1"
B200 = {"engine": {"target": "b200"}}
TP2 = {"engine": {"tp": 2}}


def reasons(version, options=None, **changes) -> list[str]:
    """What speaks against a request."""
    engine = changes.pop("engine", {}) | {"options": options or {}}
    return engines.backend("tensorrt").reasons(wanted(version, engine=engine, **changes))


def test_a_draft_model_needs_layers_that_see_all_positions():
    mistral = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 2048}
    [reason] = reasons(OLD, config=mistral, speculative=EXTERNAL)
    assert reason.startswith("speculative.mode: draft_tokens_external needs KV cache reuse while serving")
    assert "that see 2048 of 4096 positions; choose another mode" in reason
    assert reasons(OLD, config=mistral, speculative=EXTERNAL, engine={"max_seq_len": 2048}) == []
    assert reasons(OLD, config=mistral, speculative=LOOKAHEAD) == []


def test_beams_need_layers_that_see_all_positions():
    mistral = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 4095}
    [reason] = reasons(OLD, {"max_beam_width": 2}, config=mistral)
    assert reason.startswith("engine.options.max_beam_width: the runtime has no beam search where layers see")
    assert "engine.max_seq_len 4096 positions, here 4095; choose 1" in reason
    assert reasons(OLD, config=mistral) == []
    assert reasons(OLD, {"max_beam_width": 2}, config=mistral | {"sliding_window": 4096}) == []


@pytest.mark.parametrize("version", ["0.8.0", "0.12.0", OLD, "0.17.0", LATE])
@pytest.mark.parametrize(
    "changes", [{}, {"format": "fp8"}, {"format": "int4_awq", "engine": {"tp": 2, "pp": 2}}]
)
def test_plain_requests_are_built(version: str, changes: dict[str, Any]):
    assert reasons(version, **changes) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "options", "changes", "said"),
    [
        # builder.build before 1.0: "Paged Context FMHA doesn't work with int8 kv cache"
        (OLD, {"use_paged_context_fmha": True}, {"kv_cache": "int8"},
         "engine.options.use_paged_context_fmha: does not read an INT8 cache; switch it off, or choose kv_cache fp8 or auto"),
        # builder.build before 1.0: "FP8 Paged Context FMHA only works with fp8 quantization workflow"
        (OLD, {"use_paged_context_fmha": True}, {"kv_cache": "fp8"},
         "engine.options.use_paged_context_fmha: over an FP8 cache it needs FP8 weights, not format none"),
        # commands/build.py: both given
        (OLD, {"multiple_profiles": True, "opt_num_tokens": 8}, {},
         "engine.options.multiple_profiles: cannot be had together with opt_num_tokens"),
        (OLD, {"max_num_tokens": 2048}, {},
         "engine.options.max_num_tokens: a prompt of 4096 tokens does not fit into 2048, and is not read in chunks"),
        (OLD, {"kv_cache_type": "disabled"}, {}, "engine.options.kv_cache_type: without a cache nothing can be generated"),
        (OLD, {"kv_cache_type": "continuous", "use_paged_context_fmha": True}, {},
         "engine.options.kv_cache_type: use_paged_context_fmha needs a paged cache"),
        ("0.12.0", {"paged_kv_cache": False, "use_paged_context_fmha": True}, {},
         "engine.options.paged_kv_cache: use_paged_context_fmha needs a paged cache"),
        # optimize_model_with_config: "GemmSwiGLU plugin requires --use_fused_mlp flag"
        (OLD, {"gemm_swiglu_plugin": "fp8", "use_fused_mlp": False}, {"format": "fp8"},
         "engine.options.gemm_swiglu_plugin: needs use_fused_mlp; switch it on"),
        (LATE, {"low_latency_gemm_swiglu_plugin": "fp8", "use_fused_mlp": False}, {"format": "fp8"},
         "engine.options.low_latency_gemm_swiglu_plugin: needs use_fused_mlp"),
        # release notes of 0.11: "fused GEMM-SwiGLU plugin for FP8 on SM90"
        (OLD, {"gemm_swiglu_plugin": "fp8"}, {"format": "fp8", "engine": {"target": "l40s"}},
         "engine.options.gemm_swiglu_plugin: has kernels for sm_90, not sm_89"),
        (OLD, {"gemm_swiglu_plugin": "fp8"}, {}, "engine.options.gemm_swiglu_plugin: needs format fp8, not none"),
        (OLD, {"low_latency_gemm_plugin": "fp8"}, {"format": "fp8_rowwise"},
         "engine.options.low_latency_gemm_plugin: needs format fp8, not fp8_rowwise"),
        (OLD, {"gemm_plugin": "fp8"}, {}, "engine.options.gemm_plugin: fp8 needs format fp8, not none"),
        (LATE, {"gemm_plugin": "nvfp4"}, {}, "engine.options.gemm_plugin: nvfp4 needs NVFP4 weights, which are not built"),
        (LATE, {"fuse_fp4_quant": True}, {}, "engine.options.fuse_fp4_quant: needs NVFP4 weights, which are not built"),
        (OLD, {"fp8_rowwise_gemm_plugin": "auto"}, {"format": "fp8"},
         "engine.options.fp8_rowwise_gemm_plugin: needs format fp8_rowwise, not fp8"),
        (OLD, {"reduce_fusion": True, "user_buffer": True}, TP2, "engine.options.user_buffer: needs format fp8, not none"),
        # PluginConfig.validate: unsupported on SM 100
        (LATE, {"low_latency_gemm_plugin": "fp8"}, B200 | {"format": "fp8"},
         "engine.options.low_latency_gemm_plugin: is not supported on sm_100"),
        (LATE, {"bert_context_fmha_fp32_acc": True}, B200,
         "engine.options.bert_context_fmha_fp32_acc: is not supported on sm_100"),
        (LATE, {"gemm_swiglu_plugin": "fp8"}, B200 | {"format": "fp8"},
         "engine.options.gemm_swiglu_plugin: is not supported on sm_100"),
        (OLD, {"lora_plugin": "auto"}, {}, "engine.options.lora_target_modules: is needed with lora_plugin"),
        (OLD, {"lora_target_modules": ["attn_q"]}, {}, "engine.options.lora_plugin: is needed with lora_target_modules"),
        (LATE, {"dora_plugin": True}, {}, "engine.options.lora_plugin: is needed with dora_plugin"),
        (LATE, {"streamingllm": True}, {}, "engine.options.streamingllm: is refused by TensorRT-LLM 1.2.1"),
        (OLD, {"streamingllm": True}, {"config": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}},
         "engine.options.streamingllm: is for LlamaForCausalLM, not MistralForCausalLM"),
        (OLD, {"pp_reduce_scatter": True}, {}, "engine.options.pp_reduce_scatter: is for MixtralForCausalLM"),
        (OLD, {"gather_context_logits": False}, {}, "engine.options.gather_context_logits: is always on"),
        (OLD, {"strip_plan": True}, {}, "engine.options.strip_plan: an engine without weights cannot be scored"),
        # support: versions, formats, GPUs
        ("0.14.0", {}, {"format": "fp8_rowwise"}, "format: fp8_rowwise of a model needs TensorRT-LLM 0.15"),
        ("0.8.0", {}, {"format": "w4a8_awq"}, "format: w4a8_awq of a model needs TensorRT-LLM 0.9"),
        ("0.14.0", {}, {"format": "int8_sq"}, "format: int8_sq of a model needs TensorRT-LLM 0.15, where W8A8_SQ_PER_CHANNEL"),
        ("0.14.0", {}, {"format": {"default": "fp8", "except": {"*.0.*": "int4_awq"}}},
         "format: fp8 with exceptions of a model needs TensorRT-LLM 0.15, where MIXED_PRECISION is first read"),
        (
            "0.15.0",
            {},
            {"format": "w4a8_awq", "engine": {"target": "l4"}},
            "format: w4a8_awq on sm_89 needs TensorRT-LLM 0.16",
        ),
        (
            "0.9.0",
            {},
            {"format": "w4a8_awq", "engine": {"target": "l4"}, "config": {"dtype": "float16"}},
            "format: w4a8_awq on sm_89 needs TensorRT-LLM 0.10",
        ),
        (
            "0.11.0",
            {"use_fp8_context_fmha": True},
            {"format": "fp8", "engine": {"target": "l4"}},
            "engine.options.use_fp8_context_fmha: on sm_89 it needs TensorRT-LLM 0.12",
        ),
        (
            OLD,
            {},
            {"format": "fp8", "engine": {"target": "host"}, "host": host(Gpu("NVIDIA A10", 86, 1, "550"))},
            "format: fp8 needs sm_89; this host's GPU is sm_86",
        ),
        (OLD, {}, B200, "engine.target: sm_100 needs TensorRT-LLM 0.17; this toolchain is 0.16.0"),
        (LATE, {}, B200 | {"format": "int4_awq"}, "format: int4_awq is not built for sm_100"),
        (LATE, {}, B200 | {"format": "fp8_rowwise"}, "format: fp8_rowwise is not built for sm_100"),
        (LATE, {}, B200 | {"kv_cache": "int8"}, "kv_cache: int8 is not built for sm_100"),
        ("0.11.0", {}, {"config": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}},
         "model: TensorRT-LLM 0.11.0 is not given rope_type 'llama3'; it is given none, linear, dynamic, longrope"),
        (LATE, {}, {"config": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0}}},
         "model: TensorRT-LLM 1.2.1 is not given rope_type 'yarn'; it is given none, linear, dynamic, longrope, llama3"),
        ("0.10.0", {}, {"engine": {"tp": 4, "ep": 2}}, "engine.ep: 2 of 4 ranks needs TensorRT-LLM 0.11"),
        # traffic
        (OLD, {}, {"traffic": Traffic(input_tokens=4000, output_tokens=500)}, "engine.max_seq_len: 4096 tokens do not hold"),
        # speculative decoding
        ("0.9.0", {}, {"speculative": EXTERNAL}, "speculative.mode: draft_tokens_external needs TensorRT-LLM 0.10"),
        ("0.12.0", {}, {"speculative": LOOKAHEAD}, "speculative.mode: lookahead_decoding needs TensorRT-LLM 0.13"),
        ("0.14.0", {}, {"speculative": EAGLE}, "speculative.mode: eagle needs TensorRT-LLM 0.19"),
        ("0.16.0", {}, {"speculative": Speculative(mode="medusa", max_draft_len=8)},
         "speculative.mode: medusa needs TensorRT-LLM 0.17"),
        (LATE, {}, {"speculative": EAGLE, "engine": {"max_batch_size": 513}}, "engine.max_batch_size: EAGLE serves at most 512"),
        (LATE, {}, {"speculative": Speculative(mode="eagle", max_draft_len=257)},
         "speculative.max_draft_len: EAGLE drafts at most 256 tokens, not 257"),
        (LATE, {}, {"speculative": EXTERNAL, "kv_cache": "int8"},
         "kv_cache: speculative.mode draft_tokens_external needs paged context attention, which is off with kv_cache int8"),
        (OLD, {}, {"speculative": EXTERNAL, "kv_cache": "int8"},
         "engine.options.use_paged_context_fmha: does not read an INT8 cache"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_the_field_to_change(version: str, options, changes, said: str):
    [reason] = reasons(version, options, **changes)
    assert reason.startswith(said)
    assert "; " in reason


# What builders from 1.0 on only turn off is no reason there.
@pytest.mark.parametrize("changes", [{"kv_cache": "int8"}, {"kv_cache": "fp8"}])
def test_late_builders_are_not_kept_from_what_they_turn_off(changes: dict[str, Any]):
    assert reasons(LATE, {"use_paged_context_fmha": True}, **changes) == []


def test_late_builders_read_an_fp8_cache_with_w4a8_weights_too():
    paged = {"use_paged_context_fmha": True}
    assert reasons(LATE, paged, format="w4a8_awq", kv_cache="fp8") == []
    assert reasons(OLD, paged, format="w4a8_awq", kv_cache="fp8") != []


def test_every_family_needs_its_first_version():
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    assert reasons("0.10.0", config=config) == []
    [reason] = reasons("0.9.0", config=config)
    assert reason.startswith("model: Qwen2ForCausalLM needs TensorRT-LLM 0.10; this toolchain is 0.9.0")
    [reason] = reasons(
        "0.17.0", config={"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128}
    )
    assert reason.startswith("model: Qwen3ForCausalLM needs TensorRT-LLM 0.20")
    assert (
        reasons(LATE, config={"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128})
        == []
    )
    assert min(FAMILIES.values()) == (0, 8)


def test_what_the_loader_cannot_load_is_a_reason_too():
    assert reasons(OLD, format="int4_awq", engine={"tp": 3}) == []  # impossible anyway: the planner tells
    mixed = {"default": "fp8_rowwise", "except": {"*.mlp.down_proj": "none"}}
    assert any("fp8_rowwise for a whole model only" in reason for reason in reasons(OLD, format=mixed))
    stages = {"default": "fp8", "except": {"model.layers.0.mlp.*": "none"}}
    [reason] = reasons(OLD, format=stages, engine={"pp": 2})
    assert reason.startswith("format.except: layer 16 has other formats than layer 0")


def test_a_draft_model_has_to_be_buildable_too():
    draft = read_shape(
        CONFIG | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128}
    )
    [reason] = reasons(OLD, speculative=EXTERNAL, draft=draft)
    assert reason.startswith("speculative.draft: model: Qwen3ForCausalLM needs TensorRT-LLM 0.20")
    assert reasons(LATE, speculative=EXTERNAL, draft=draft) == []
    both = reasons(
        "0.17.0",
        speculative=EXTERNAL,
        draft=draft,
        config={"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128},
    )
    assert len(both) == 1  # said of the target, and not again


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    asked = wanted(OLD)
    asked = replace(asked, shape=replace(asked.shape, architecture="NovelForCausalLM"))
    [reason] = engines.backend("tensorrt").reasons(asked)
    assert reason.startswith(
        "model: TensorRT-LLM's engines are not built for NovelForCausalLM; choose one of Llama"
    )


def test_awq_of_experts_came_later_than_awq():
    asked = wanted(OLD, format="int4_awq")
    experts = Experts(count=8, per_token=2, intermediate_size=64, shared_intermediate_size=0, normalized=True)
    asked = replace(asked, shape=replace(asked.shape, architecture="MixtralForCausalLM", experts=experts))
    [reason] = engines.backend("tensorrt").reasons(asked)
    assert reason.startswith("format: int4_awq of a mixture of experts needs TensorRT-LLM 0.19")


@pytest.mark.parametrize(("name", "expected"), [("none", None), ("fp8", "FP8"), ("int4_wo", "W4A16_AWQ"),
    ("int4_awq", "W4A16_AWQ"), ({"default": "fp8", "except": {"*.0.*": "none"}}, "FP8"),
    ({"default": "int4_awq", "except": {"*.0.*": "int4_wo"}}, "W4A16_AWQ"),
    ({"default": "fp8", "except": {"*.0.*": "int8_wo"}}, "MIXED_PRECISION")])  # fmt: skip
def test_a_format_is_known_by_the_checkpoints_name(name, expected: str | None):
    assert algorithm(Precision.parse(name)) == expected
    assert expected != "MIXED_PRECISION" or expected in ALGORITHMS


def test_options_of_a_backend_without_a_toolchain_are_those_of_the_newest_table():
    backend, asked = (
        engines.backend("tensorrt"),
        wanted(choice=Choice(problem="no TensorRT-LLM: none is on PATH")),
    )
    assert "dora_plugin" in backend.options(asked).model_fields
    assert backend.reasons(asked) == []
    assert backend.notes(asked)[0] == "engine.toolchain: there is none; options are those of TensorRT-LLM 1.2"
    assert "none is on PATH" in present(backend.missing(asked))
