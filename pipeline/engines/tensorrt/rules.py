"""What `trtllm-build` changes without a word, changed by us first and said; pure.

Sources: `commands/build.py` and `builder.py` (`build`, `_init_max_seq_len`) and `_common.py`
(`check_max_num_tokens`) of TensorRT-LLM 0.12, 0.16 and 1.0 to 1.2. They were read and not run: the engine's
own config.json decides in the end, see `read_back`.
"""

from dataclasses import dataclass, replace
from typing import Any

from pipeline.backend.build_request import Wanted
from pipeline.engines.tensorrt import profiles, support
from pipeline.engines.tensorrt.sheet import Sheet, sheet
from pipeline.engines.tensorrt.tensorrt_options import Options, options_model
from pipeline.trtllm.target_gpus import sm
from recipes.precision import Precision

Number = tuple[int, int]

LATE: Number = (1, 0)
"""From here on the builder turns attention features off where older ones raise."""

FUSED_MLP = (None, "FP8", "MIXED_PRECISION")
"""Formats whose gate and up projection can be one product (`commands/build.py`)."""

EAGLE = "EagleForCausalLM"
"""Architecture of a checkpoint with EAGLE's net, whatever the model's own is."""

REDUCE_FUSION = {"LlamaForCausalLM", "MedusaForCausalLM"}
"""Architectures that `reduce_fusion` is left on for; Gemma2ForCausalLM too from 1.0 on."""

FP8_ATTENTION: dict[str, Number] = {"FP8": (0, 8), "W4A8_AWQ": (0, 17)}
"""Format -> first version whose prompt attention can be in FP8 (release notes of 0.17 for the second)."""

MANY_TOKENS = 16384
"""More tokens per iteration than this only cost memory, says the builder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """What an engine is built with."""

    settings: dict[str, Any]
    """`table`: the option table's name; every option of it that an engine depends on; with a draft model,
    `draft`: the same for its engine."""
    notes: list[str]
    """One per value that differs from what was asked or left to us, and why."""


def effective(wanted: Wanted, options: Options) -> Effective:
    """Every option with the value that the engine will really have."""
    made = worked_out(wanted, options)
    settings = {"table": options.table.snapshot, **made.values}
    if (draft := draft_request(wanted)) is not None:
        settings["draft"] = _draft(draft, made)
    return Effective(settings=settings, notes=made.notes)


def worked_out(wanted: Wanted, options: Options) -> Sheet:
    """The sheet after every rule, in the order in which the builder applies them."""
    made = sheet(wanted, options)
    for rule in (
        _recipe,
        _speculation,
        _mlp,
        _fusions,
        _attention,
        _plugins,
        _types,
        _lengths,
        _tokens,
        _logits,
    ):
        rule(made)
    return made


def scoring(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the twin that is scored where the published engine cannot return context logits.

    The command refuses context logits beside draft tokens. The twin has the same checkpoint and settings
    without the draft; for an engine that is not speculative it is the engine itself.
    """
    twin = {name: value for name, value in settings.items() if name != "draft"}
    if settings.get("max_draft_len"):
        twin |= {"speculative_decoding_mode": None, "max_draft_len": 0, "gather_context_logits": True}
    return twin


def draft_request(wanted: Wanted) -> Wanted | None:
    """What is asked of the draft model's engine: as of the target's, without drafts; None without a draft."""
    asked = wanted.speculative
    if asked is None or wanted.draft is None:
        return None
    precision = Precision.parse(asked.draft_format)
    return replace(
        wanted, shape=wanted.draft, precision=precision, kv_cache="auto", speculative=None, draft=None
    )


def _draft(wanted: Wanted, target: Sheet) -> dict[str, Any]:
    """Settings of the draft model's engine: the target's blocks, paged context, lengths and batch."""
    shared = {
        name: target.values[name]
        for name in ("tokens_per_block", "use_paged_context_fmha", "kv_cache_type", "max_beam_width")
        if name in target
    }
    options = options_model(target.table).model_validate(shared)
    return {
        "table": target.table.snapshot,
        **worked_out(wanted, options).values,
        "gather_context_logits": False,
    }


def _recipe(made: Sheet) -> None:
    """What the recipe says outside of the options."""
    engine, asked = made.wanted.engine, made.wanted.speculative
    made.put("max_batch_size", engine.max_batch_size)
    made.put("max_seq_len", engine.max_seq_len)
    made.put("tp_size", engine.tp)
    made.put("pp_size", engine.pp)
    if asked is not None:
        made.put("speculative_decoding_mode", asked.mode)
        made.put("max_draft_len", asked.max_draft_len)


def _speculation(made: Sheet) -> None:
    """Modes whose target engine has to look at several new tokens over the paged cache."""
    asked = made.wanted.speculative
    if asked is not None and asked.mode in ("draft_tokens_external", "eagle"):
        made.switch("use_paged_context_fmha", on=True, why=f"speculative.mode {asked.mode} needs it")


def _mlp(made: Sheet) -> None:
    name = support.algorithm(made.wanted.precision)
    if name not in FUSED_MLP:
        made.switch("use_fused_mlp", on=False, why=f"{name} weights have no fused form")


def _fusions(made: Sheet) -> None:
    """`reduce_fusion` and what depends on it."""
    asked, engine = made.wanted.speculative, made.wanted.engine
    eagle = asked is not None and asked.mode == "eagle"
    architecture = EAGLE if eagle else made.wanted.shape.architecture
    able = REDUCE_FUSION | ({"Gemma2ForCausalLM"} if made.table.number >= LATE else set())
    if engine.tp == 1:
        made.switch("reduce_fusion", on=False, why="engine.tp is 1: there is nothing to reduce")
    elif architecture not in able:
        made.switch("reduce_fusion", on=False, why=f"{architecture} has no such kernels")
    if not made.on("reduce_fusion"):
        made.switch("user_buffer", on=False, why="it needs reduce_fusion")
    made.switch("norm_quant_fusion", on=False, why="it needs NVFP4 weights")


def _attention(made: Sheet) -> None:
    """Paged and FP8 context attention, as far as versions agree; `_late_attention` for what 1.0 changed."""
    if made.on("streamingllm"):
        made.switch("use_paged_context_fmha", on=False, why="streamingllm has no paged context attention")
    if made.table.number >= LATE and not made.on("context_fmha"):
        for option in ("use_fp8_context_fmha", "use_paged_context_fmha"):
            made.switch(option, on=False, why="context_fmha is off")
    name = support.algorithm(made.wanted.precision)
    first = FP8_ATTENTION.get(name or "")
    if first is None or made.table.number < first:
        why = f"it needs FP8 weights, not {name or 'the source dtype'}"
        made.switch("use_fp8_context_fmha", on=False, why=why)
    elif made.on("use_paged_context_fmha") and made.wanted.kv_cache == "fp8":
        made.switch("use_fp8_context_fmha", on=True, why="paged context attention over an FP8 cache needs it")
    if made.table.number >= LATE:
        _late_attention(made)


def _late_attention(made: Sheet) -> None:
    """What builders from 1.0 on turn off; older ones raise, or do not look."""
    cache, capability = made.wanted.kv_cache, sm(made.wanted)
    if capability is not None and capability < 89:
        made.switch("use_fp8_context_fmha", on=False, why=f"it needs sm_89; the GPU is sm_{capability}")
    if made.on("use_paged_context_fmha") and cache != "fp8":
        made.switch(
            "use_fp8_context_fmha", on=False, why="with paged context attention it needs kv_cache fp8"
        )
    if cache == "fp8" and not made.on("use_fp8_context_fmha"):
        made.switch("use_paged_context_fmha", on=False, why="over an FP8 cache it needs use_fp8_context_fmha")
    if cache == "int8":
        made.switch("use_paged_context_fmha", on=False, why="it does not read an INT8 cache")


def _plugins(made: Sheet) -> None:
    """Plugins that the checkpoint and the number of ranks decide; before 0.11 their types too."""
    dtype, world_size = made.wanted.shape.dtype, made.wanted.engine.world_size
    if world_size > 1:
        made.change("nccl_plugin", dtype, f"{world_size} ranks exchange {dtype}")
    else:
        made.change("nccl_plugin", "disable", "there is one rank")
    for name, option in made.table.options.items():
        if option.default == "float16" and name not in made.given and made.on(name):
            made.change(name, dtype, f"the model is in {dtype}, and this version has no auto")
    if support.algorithm(made.wanted.precision) == "FP8_PER_CHANNEL_PER_TOKEN":
        made.change("fp8_rowwise_gemm_plugin", dtype, "the format is fp8_rowwise")


def _types(made: Sheet) -> None:
    made.change(
        "logits_dtype", made.values["logits_dtype"].replace("auto", "float32"), "the checkpoint says so"
    )
    if support.algorithm(made.wanted.precision) == "FP8" or made.wanted.kv_cache == "fp8":
        made.switch("strongly_typed", on=True, why="FP8 needs it")
    for name in ("builder_opt", "builder_force_num_profiles"):
        if made.values.get(name) == "auto":
            made.put(name, None)


def _lengths(made: Sheet) -> None:
    """Prompt and answer lengths; before 0.11 there is no `max_seq_len`, only their sum."""
    limit, traffic = made.wanted.engine.max_seq_len, made.wanted.traffic
    longest = profiles.longest_prompt(traffic, limit)
    summed = "max_seq_len" not in made
    most = limit - 1 if summed else limit
    if made.values["max_input_len"] == "auto":
        source = "engine.max_seq_len leaves so much" if traffic is None else "traffic says so"
        made.change("max_input_len", min(longest, most), source)
    elif made.values["max_input_len"] > most:
        made.change("max_input_len", most, f"engine.max_seq_len is {limit}")
    if summed:
        rest = limit - made.values["max_input_len"]
        made.change("max_output_len", rest, f"engine.max_seq_len {limit} leaves so much beside the prompt")
    else:
        made.put("max_output_len", None)


def _tokens(made: Sheet) -> None:
    """Tokens per iteration and the range that kernels are chosen for."""
    _most_tokens(made)
    _bounds(made)
    _profiles(made)


def _most_tokens(made: Sheet) -> None:
    engine, traffic = made.wanted.engine, made.wanted.traffic
    if made.values["max_num_tokens"] == "auto":
        tokens = profiles.max_tokens(traffic, engine.max_batch_size)
        made.change("max_num_tokens", tokens, "traffic says so" if traffic else "that is the usual size")
        if not made.on("use_paged_context_fmha"):
            longest = max(tokens, made.values["max_input_len"])
            made.change(
                "max_num_tokens", longest, "without paged context attention prompts are not read in chunks"
            )
    if not made.on("remove_input_padding"):
        padded = engine.max_batch_size * engine.max_seq_len
        made.change("max_num_tokens", padded, "with padding every request takes engine.max_seq_len")


def _bounds(made: Sheet) -> None:
    """`check_max_num_tokens`, then what draft tokens add."""
    engine, asked, tokens = made.wanted.engine, made.wanted.speculative, made.values["max_num_tokens"]
    most, block = engine.max_batch_size * engine.max_seq_len, made.values["tokens_per_block"]
    if tokens > most:
        made.change("max_num_tokens", most, "engine.max_batch_size times engine.max_seq_len is no more")
    tokens = made.values["max_num_tokens"]
    if not made.on("context_fmha") and tokens < made.values["max_input_len"]:
        made.change(
            "max_num_tokens", made.values["max_input_len"], "without context_fmha a prompt has to fit"
        )
    elif made.on("context_fmha") and tokens < block:
        made.change("max_num_tokens", block, "one block of the cache has to fit")
    if asked is not None:
        least = engine.max_batch_size * (asked.max_draft_len + 1)
        if made.values["max_num_tokens"] < least:
            made.change("max_num_tokens", least, "engine.max_batch_size times max_draft_len + 1 has to fit")


def _profiles(made: Sheet) -> None:
    """`multiple_profiles` and `opt_num_tokens`: one or the other."""
    engine, traffic = made.wanted.engine, made.wanted.traffic
    most, single = made.values["max_num_tokens"], made.values.get("opt_num_tokens")
    if made.values.get("multiple_profiles") == "auto":
        several = traffic is not None and single == "auto"
        why = "traffic is given: kernels for every load" if several else "there is no traffic to serve"
        if single != "auto":
            why = "opt_num_tokens is given"
        made.change("multiple_profiles", "enable" if several else "disable", why)
    if single == "auto" and made.on("multiple_profiles"):
        made.change("opt_num_tokens", None, "multiple_profiles takes its place")
    elif single == "auto":
        usual = engine.max_batch_size * made.values["max_beam_width"]
        if traffic is not None:
            usual = profiles.usual_tokens(traffic, engine.max_batch_size)
        made.change(
            "opt_num_tokens", min(usual, most), "traffic says so" if traffic else "a token per request"
        )
    elif single is not None and single > most:
        made.change("opt_num_tokens", most, "max_num_tokens is no more")


def _logits(made: Sheet) -> None:
    """Context logits are what the gate scores; the command refuses them beside draft tokens."""
    if made.on("gather_all_token_logits"):
        made.switch("gather_generation_logits", on=True, why="gather_all_token_logits says so")
    if made.wanted.speculative is None:
        return
    why = "trtllm-build refuses context logits beside draft tokens; the gate scores a twin without them"
    made.switch("gather_context_logits", on=False, why=why)
    made.switch("gather_all_token_logits", on=False, why=why)
