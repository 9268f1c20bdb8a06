"""Combinations that `trtllm-build` refuses or that build nothing of use, each with the field to change; pure.

Sources: `commands/build.py`, `builder.build`, `optimize_model_with_config` and `PluginConfig.validate` of
TensorRT-LLM 0.12, 0.16 and 1.0 to 1.2, and its release notes.
"""

from collections.abc import Iterator

from pipeline.engines.tensorrt import support
from pipeline.engines.tensorrt.rules import LATE
from pipeline.engines.tensorrt.sheet import Sheet
from pipeline.trtllm.target_gpus import sm
from pipeline.trtllm.windows import attention_windows

NOT_ON_SM_100 = (
    "gemm_swiglu_plugin", "fp8_rowwise_gemm_plugin", "low_latency_gemm_plugin",
    "low_latency_gemm_swiglu_plugin", "bert_context_fmha_fp32_acc",
)  # fmt: skip
"""Options that `PluginConfig.validate` refuses there."""

FP8_ONLY = ("gemm_swiglu_plugin", "low_latency_gemm_plugin", "low_latency_gemm_swiglu_plugin", "user_buffer")
"""Options that work with FP8 weights only."""

FP8_ON_ADA = (0, 12)
"""Release notes: "FP8 FMHA for NVIDIA Ada Lovelace Architecture"."""

EAGLE_LIMITS = {"max_batch_size": 512, "max_draft_len": 256}
"""EAGLE's largest batch and draft (facts of 0.16)."""


def reasons(sheet: Sheet) -> Iterator[str]:
    """Everything that speaks against the settings that a sheet came to."""
    yield from _attention(sheet)
    yield from _cache(sheet)
    yield from _windows(sheet)
    yield from _tokens(sheet)
    yield from _plugins(sheet)
    yield from _adapters(sheet)
    yield from _models(sheet)
    yield from _outputs(sheet)
    yield from _speculation(sheet)


def _attention(sheet: Sheet) -> Iterator[str]:
    """Paged context attention over caches that it cannot read."""
    request, paged = sheet.request, sheet.on("use_paged_context_fmha")
    if sheet.on("use_fp8_context_fmha") and sm(request) == 89 and sheet.table.number < FP8_ON_ADA:
        yield (
            f"engine.options.use_fp8_context_fmha: on sm_89 it needs TensorRT-LLM 0.12; this toolchain is "
            f"{sheet.table.version}; switch it off"
        )
    # From 1.0 on the builder switches it off itself, and so do the rules before this.
    if not paged or sheet.table.number >= LATE:
        return
    if request.kv_cache == "int8":
        yield (
            "engine.options.use_paged_context_fmha: does not read an INT8 cache; "
            "switch it off, or choose kv_cache fp8 or auto"
        )
    if request.kv_cache == "fp8" and support.algorithm(request.precision) != "FP8":
        yield (
            f"engine.options.use_paged_context_fmha: over an FP8 cache it needs FP8 weights, not format "
            f"{request.precision}; switch it off, or choose format fp8, or kv_cache auto"
        )


def _cache(sheet: Sheet) -> Iterator[str]:
    # Older tables have a switch instead of a type.
    kind = sheet.values.get("kv_cache_type", "paged" if sheet.on("paged_kv_cache") else "continuous")
    if kind == "disabled":
        yield "engine.options.kv_cache_type: without a cache nothing can be generated; choose paged"
    elif kind == "continuous" and sheet.on("use_paged_context_fmha"):
        option = "kv_cache_type" if "kv_cache_type" in sheet else "paged_kv_cache"
        yield (
            f"engine.options.{option}: use_paged_context_fmha needs a paged cache; "
            "choose one, or switch use_paged_context_fmha off"
        )


def _windows(sheet: Sheet) -> Iterator[str]:
    """Beams over a cache whose layers forget ("Can't support cyclic kv cache with beam search")."""
    request, beams = sheet.request, sheet.values.get("max_beam_width", 1)
    if beams > 1 and attention_windows(request.shape.windows, request.engine.max_seq_len) is not None:
        yield (
            f"engine.options.max_beam_width: the runtime has no beam search where layers see fewer than "
            f"engine.max_seq_len {request.engine.max_seq_len} positions, here "
            f"{request.shape.sliding_window}; choose 1"
        )


def _tokens(sheet: Sheet) -> Iterator[str]:
    single, most = sheet.values.get("opt_num_tokens"), sheet.values["max_num_tokens"]
    if single is not None and sheet.on("multiple_profiles"):
        yield (
            "engine.options.multiple_profiles: cannot be had together with opt_num_tokens; "
            "leave one of them out"
        )
    longest = sheet.values["max_input_len"]
    if most < longest and not sheet.on("use_paged_context_fmha"):
        yield (
            f"engine.options.max_num_tokens: a prompt of {longest} tokens does not fit into {most}, and is "
            "not read in chunks without use_paged_context_fmha; switch that on, raise max_num_tokens, "
            "or lower max_input_len"
        )


def _plugins(sheet: Sheet) -> Iterator[str]:
    """Plugins whose weights or GPU are other ones."""
    name, capability = support.algorithm(sheet.request.precision), sm(sheet.request)
    for option in FP8_ONLY:
        if sheet.on(option) and name != "FP8":
            yield f"engine.options.{option}: needs format fp8, not {sheet.request.precision}; leave it out"
    if sheet.on("fp8_rowwise_gemm_plugin") and name != "FP8_PER_CHANNEL_PER_TOKEN":
        yield (
            f"engine.options.fp8_rowwise_gemm_plugin: needs format fp8_rowwise, not "
            f"{sheet.request.precision}; leave it out"
        )
    yield from _products(sheet)
    yield from _swiglu(sheet, capability)
    if capability is not None and 100 <= capability < 120:
        for option in NOT_ON_SM_100:
            # A default is nothing that a recipe could leave out.
            if sheet.on(option) and option in sheet.given:
                yield f"engine.options.{option}: is not supported on sm_{capability}; leave it out"


def _products(sheet: Sheet) -> Iterator[str]:
    kind, precision = sheet.values.get("gemm_plugin"), sheet.request.precision
    if kind == "fp8" and support.algorithm(precision) != "FP8":
        yield f"engine.options.gemm_plugin: fp8 needs format fp8, not {precision}; choose auto"
    if kind == "nvfp4":
        yield "engine.options.gemm_plugin: nvfp4 needs NVFP4 weights, which are not built; choose auto"
    if sheet.on("fuse_fp4_quant"):
        yield "engine.options.fuse_fp4_quant: needs NVFP4 weights, which are not built; leave it out"


def _swiglu(sheet: Sheet, capability: int | None) -> Iterator[str]:
    for option in ("gemm_swiglu_plugin", "low_latency_gemm_swiglu_plugin"):
        if sheet.on(option) and not sheet.on("use_fused_mlp"):
            yield f"engine.options.{option}: needs use_fused_mlp; switch it on, or leave the plugin out"
    if sheet.on("gemm_swiglu_plugin") and capability not in (None, 90, 100):  # `_plugins` refuses sm_100
        yield f"engine.options.gemm_swiglu_plugin: has kernels for sm_90, not sm_{capability}; leave it out"


def _adapters(sheet: Sheet) -> Iterator[str]:
    targets = sheet.values.get("lora_target_modules")
    if sheet.on("lora_plugin") and "lora_target_modules" in sheet and not targets:
        yield "engine.options.lora_target_modules: is needed with lora_plugin; name the adapters' linears"
    if targets and not sheet.on("lora_plugin"):
        yield "engine.options.lora_plugin: is needed with lora_target_modules; choose auto"
    if sheet.on("dora_plugin") and not sheet.on("lora_plugin"):
        yield "engine.options.lora_plugin: is needed with dora_plugin; choose auto"


def _models(sheet: Sheet) -> Iterator[str]:
    """Features of one architecture."""
    architecture = sheet.request.shape.architecture
    if sheet.on("streamingllm") and sheet.table.number >= LATE:
        yield f"engine.options.streamingllm: is refused by TensorRT-LLM {sheet.table.version}; leave it out"
    elif sheet.on("streamingllm") and architecture != "LlamaForCausalLM":
        yield f"engine.options.streamingllm: is for LlamaForCausalLM, not {architecture}; leave it out"
    if sheet.on("pp_reduce_scatter") and architecture != "MixtralForCausalLM":
        yield f"engine.options.pp_reduce_scatter: is for MixtralForCausalLM, not {architecture}; leave it out"
    if sheet.on("user_buffer") and architecture != "LlamaForCausalLM":
        yield f"engine.options.user_buffer: is for LlamaForCausalLM, not {architecture}; leave it out"


def _outputs(sheet: Sheet) -> Iterator[str]:
    """Engines that could not be judged."""
    speculative = sheet.request.speculative is not None
    # Beside drafts it is always off, and the gate scores the twin.
    if not speculative and not sheet.on("gather_context_logits"):
        yield (
            "engine.options.gather_context_logits: is always on, because the gate scores the logits of this "
            "very engine; leave it out"
        )
    if sheet.on("strip_plan"):
        yield (
            "engine.options.strip_plan: an engine without weights cannot be scored by the gate; "
            "leave it out, and strip a copy after publication"
        )


def _speculation(sheet: Sheet) -> Iterator[str]:
    speculative, engine = sheet.request.speculative, sheet.request.engine
    if speculative is None:
        return
    # `rules._speculation` switched it on: the cache or the format then switched it off.
    if speculative.mode in ("draft_tokens_external", "eagle") and not sheet.on("use_paged_context_fmha"):
        yield (
            f"kv_cache: speculative.mode {speculative.mode} needs paged context attention, which is off with "
            f"kv_cache {sheet.request.kv_cache} and format {sheet.request.precision}; choose kv_cache auto"
        )
    shapes = [sheet.request.shape, *([sheet.request.draft] if sheet.request.draft is not None else [])]
    windowed = [shape for shape in shapes if attention_windows(shape.windows, engine.max_seq_len) is not None]
    if speculative.mode == "draft_tokens_external" and windowed:
        yield (
            f"speculative.mode: {speculative.mode} needs KV cache reuse while serving, shut out by layers "
            f"that see {windowed[0].sliding_window} of {engine.max_seq_len} positions; choose another mode, "
            "or lower engine.max_seq_len"
        )
    if speculative.mode == "eagle" and engine.max_batch_size > EAGLE_LIMITS["max_batch_size"]:
        yield (
            f"engine.max_batch_size: EAGLE serves at most {EAGLE_LIMITS['max_batch_size']} requests at once, "
            f"not {engine.max_batch_size}; lower it"
        )
    if speculative.mode == "eagle" and speculative.max_draft_len > EAGLE_LIMITS["max_draft_len"]:
        yield (
            f"speculative.max_draft_len: EAGLE drafts at most {EAGLE_LIMITS['max_draft_len']} tokens, "
            f"not {speculative.max_draft_len}; lower it"
        )
