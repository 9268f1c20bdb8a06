"""Predicts the options that `trtllm-build` silently overrides; pure.

Each is set here first, with a note that the plan prints.

Sources: `commands/build.py` and `builder.py` (`build`, `_init_max_seq_len`) and `_common.py`
(`check_max_num_tokens`) of TensorRT-LLM 0.12, 0.16 and 1.0 to 1.2. They were read and not run: the engine's
own config.json decides in the end, see `read_back`.
"""

from dataclasses import replace

from pipeline.backend.build_request import BuildRequest
from pipeline.engines.tensorrt import profiles, support
from pipeline.engines.tensorrt.engine_settings import EngineSettings
from pipeline.engines.tensorrt.sheet import Sheet, open_sheet
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


def resolve_settings(request: BuildRequest, options: Options) -> EngineSettings:
    """Every option with the value that the engine will really have."""
    sheet, draft = apply_rules(request, options), draft_request(request)
    return sheet.resolved(draft=_draft(draft, sheet) if draft is not None else None)


def apply_rules(request: BuildRequest, options: Options) -> Sheet:
    """The sheet after every rule, in the order in which the builder applies them."""
    sheet = open_sheet(request, options)
    # Later rules read what earlier ones set: tokens per pass depend on lengths and on paged attention.
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
        rule(sheet)
    return sheet


def draft_request(request: BuildRequest) -> BuildRequest | None:
    """The request for the draft model's engine: as the target's, without drafts; None without a draft."""
    speculative = request.speculative
    if speculative is None or request.draft is None:
        return None
    precision = Precision.parse(speculative.draft_format)
    return replace(
        request, shape=request.draft, precision=precision, kv_cache="auto", speculative=None, draft=None
    )


def _draft(request: BuildRequest, target: Sheet) -> EngineSettings:
    """Settings of the draft model's engine: the target's blocks, paged context, lengths and batch."""
    shared = {
        name: target.values[name]
        # Target and draft run as a pair over blocks of one size.
        for name in ("tokens_per_block", "use_paged_context_fmha", "kv_cache_type", "max_beam_width")
        if name in target
    }
    options = options_model(target.table).model_validate(shared)
    sheet = apply_rules(request, options)
    # A draft model only generates; its context logits would be memory that no step reads.
    return EngineSettings(table=target.table, values={**sheet.values, "gather_context_logits": False})


def _recipe(sheet: Sheet) -> None:
    """Settings that the recipe gives outside of the options."""
    engine, speculative = sheet.request.engine, sheet.request.speculative
    sheet.put("max_batch_size", engine.max_batch_size)
    sheet.put("max_seq_len", engine.max_seq_len)
    # Options of some versions only: `put` leaves out what a table lacks.
    sheet.put("tp_size", engine.tp)
    sheet.put("pp_size", engine.pp)
    if speculative is not None:
        sheet.put("speculative_decoding_mode", speculative.mode)
        sheet.put("max_draft_len", speculative.max_draft_len)


def _speculation(sheet: Sheet) -> None:
    """Modes whose target engine has to look at several new tokens over the paged cache."""
    speculative = sheet.request.speculative
    if speculative is not None and speculative.mode in ("draft_tokens_external", "eagle"):
        sheet.switch("use_paged_context_fmha", on=True, why=f"speculative.mode {speculative.mode} needs it")


def _mlp(sheet: Sheet) -> None:
    name = support.algorithm(sheet.request.precision)
    if name not in FUSED_MLP:
        sheet.switch("use_fused_mlp", on=False, why=f"{name} weights have no fused form")


def _fusions(sheet: Sheet) -> None:
    """`reduce_fusion` and what depends on it."""
    speculative, engine = sheet.request.speculative, sheet.request.engine
    eagle = speculative is not None and speculative.mode == "eagle"
    # The builder looks at the checkpoint's architecture, which is the net's there.
    architecture = EAGLE if eagle else sheet.request.shape.architecture
    able = REDUCE_FUSION | ({"Gemma2ForCausalLM"} if sheet.table.number >= LATE else set())
    if engine.tp == 1:
        sheet.switch("reduce_fusion", on=False, why="engine.tp is 1: there is nothing to reduce")
    elif architecture not in able:
        sheet.switch("reduce_fusion", on=False, why=f"{architecture} has no such kernels")
    if not sheet.on("reduce_fusion"):
        sheet.switch("user_buffer", on=False, why="it needs reduce_fusion")
    sheet.switch("norm_quant_fusion", on=False, why="it needs NVFP4 weights")


def _attention(sheet: Sheet) -> None:
    """Paged and FP8 context attention, as far as versions agree; `_late_attention` for what 1.0 changed."""
    if sheet.on("streamingllm"):
        sheet.switch("use_paged_context_fmha", on=False, why="streamingllm has no paged context attention")
    if sheet.table.number >= LATE and not sheet.on("context_fmha"):
        for option in ("use_fp8_context_fmha", "use_paged_context_fmha"):
            sheet.switch(option, on=False, why="context_fmha is off")
    name = support.algorithm(sheet.request.precision)
    first = FP8_ATTENTION.get(name or "")
    if first is None or sheet.table.number < first:
        why = f"it needs FP8 weights, not {name or 'the source dtype'}"
        sheet.switch("use_fp8_context_fmha", on=False, why=why)
    # Only here are the weights known to be in FP8.
    elif sheet.on("use_paged_context_fmha") and sheet.request.kv_cache == "fp8":
        sheet.switch(
            "use_fp8_context_fmha", on=True, why="paged context attention over an FP8 cache needs it"
        )
    if sheet.table.number >= LATE:
        _late_attention(sheet)


def _late_attention(sheet: Sheet) -> None:
    """What builders from 1.0 on turn off; older ones raise, or do not look."""
    # The order counts: each switch below reads those that are set before it.
    cache, capability = sheet.request.kv_cache, sm(sheet.request)
    if capability is not None and capability < 89:
        sheet.switch("use_fp8_context_fmha", on=False, why=f"it needs sm_89; the GPU is sm_{capability}")
    if sheet.on("use_paged_context_fmha") and cache != "fp8":
        sheet.switch(
            "use_fp8_context_fmha", on=False, why="with paged context attention it needs kv_cache fp8"
        )
    if cache == "fp8" and not sheet.on("use_fp8_context_fmha"):
        sheet.switch(
            "use_paged_context_fmha", on=False, why="over an FP8 cache it needs use_fp8_context_fmha"
        )
    if cache == "int8":
        sheet.switch("use_paged_context_fmha", on=False, why="it does not read an INT8 cache")


def _plugins(sheet: Sheet) -> None:
    """Plugins that the checkpoint and the number of ranks decide; before 0.11 their types too."""
    dtype, world_size = sheet.request.shape.dtype, sheet.request.engine.world_size
    if world_size > 1:
        sheet.change("nccl_plugin", dtype, f"{world_size} ranks exchange {dtype}")
    else:
        sheet.change("nccl_plugin", "disable", "there is one rank")
    for name, option in sheet.table.options.items():
        # Tables before 0.11 have float16 there whatever the model's own type is.
        if option.default == "float16" and name not in sheet.given and sheet.on(name):
            sheet.change(name, dtype, f"the model is in {dtype}, and this version has no auto")
    if support.algorithm(sheet.request.precision) == "FP8_PER_CHANNEL_PER_TOKEN":
        sheet.change("fp8_rowwise_gemm_plugin", dtype, "the format is fp8_rowwise")


def _types(sheet: Sheet) -> None:
    sheet.change(
        "logits_dtype", sheet.values["logits_dtype"].replace("auto", "float32"), "the checkpoint says so"
    )
    if support.algorithm(sheet.request.precision) == "FP8" or sheet.request.kv_cache == "fp8":
        sheet.switch("strongly_typed", on=True, why="FP8 needs it")
    for name in ("builder_opt", "builder_force_num_profiles"):
        if sheet.values.get(name) == "auto":
            # Unset options are left out of the command, so that TensorRT takes its own.
            sheet.put(name, None)


def _lengths(sheet: Sheet) -> None:
    """Prompt and answer lengths; before 0.11 there is no `max_seq_len`, only their sum."""
    limit, traffic = sheet.request.engine.max_seq_len, sheet.request.traffic
    longest = profiles.longest_prompt(traffic, limit)
    summed = "max_seq_len" not in sheet
    # Where only the sum counts, the answer needs a token of it.
    most = limit - 1 if summed else limit
    if sheet.values["max_input_len"] == "auto":
        source = "engine.max_seq_len leaves so much" if traffic is None else "traffic says so"
        sheet.change("max_input_len", min(longest, most), source)
    elif sheet.values["max_input_len"] > most:
        sheet.change("max_input_len", most, f"engine.max_seq_len is {limit}")
    if summed:
        rest = limit - sheet.values["max_input_len"]
        sheet.change("max_output_len", rest, f"engine.max_seq_len {limit} leaves so much beside the prompt")
    else:
        sheet.put("max_output_len", None)


def _tokens(sheet: Sheet) -> None:
    """Tokens per iteration and the range that kernels are chosen for."""
    _most_tokens(sheet)
    _bounds(sheet)
    _profiles(sheet)


def _most_tokens(sheet: Sheet) -> None:
    engine, traffic = sheet.request.engine, sheet.request.traffic
    if sheet.values["max_num_tokens"] == "auto":
        tokens = profiles.max_tokens(traffic, engine.max_batch_size)
        sheet.change("max_num_tokens", tokens, "traffic says so" if traffic else "that is the usual size")
        if not sheet.on("use_paged_context_fmha"):
            longest = max(tokens, sheet.values["max_input_len"])
            sheet.change(
                "max_num_tokens", longest, "without paged context attention prompts are not read in chunks"
            )
    # After `auto`, so that padding overrules a number of the recipe too.
    if not sheet.on("remove_input_padding"):
        padded = engine.max_batch_size * engine.max_seq_len
        sheet.change("max_num_tokens", padded, "with padding every request takes engine.max_seq_len")


def _bounds(sheet: Sheet) -> None:
    """`check_max_num_tokens`, then what draft tokens add."""
    engine, speculative, tokens = (
        sheet.request.engine,
        sheet.request.speculative,
        sheet.values["max_num_tokens"],
    )
    most, block = engine.max_batch_size * engine.max_seq_len, sheet.values["tokens_per_block"]
    if tokens > most:
        sheet.change("max_num_tokens", most, "engine.max_batch_size times engine.max_seq_len is no more")
    tokens = sheet.values["max_num_tokens"]  # the line above may have lowered it
    if not sheet.on("context_fmha") and tokens < sheet.values["max_input_len"]:
        sheet.change(
            "max_num_tokens", sheet.values["max_input_len"], "without context_fmha a prompt has to fit"
        )
    elif sheet.on("context_fmha") and tokens < block:
        sheet.change("max_num_tokens", block, "one block of the cache has to fit")
    if speculative is not None:
        # Last, so that it prevails: one step checks the drafts of every request and adds a token.
        least = engine.max_batch_size * (speculative.max_draft_len + 1)
        if sheet.values["max_num_tokens"] < least:
            sheet.change("max_num_tokens", least, "engine.max_batch_size times max_draft_len + 1 has to fit")


def _profiles(sheet: Sheet) -> None:
    """`multiple_profiles` and `opt_num_tokens`: one or the other."""
    engine, traffic = sheet.request.engine, sheet.request.traffic
    most, single = sheet.values["max_num_tokens"], sheet.values.get("opt_num_tokens")
    # A size that the recipe gives is meant: it comes before profiles that traffic would ask for.
    if sheet.values.get("multiple_profiles") == "auto":
        several = traffic is not None and single == "auto"
        why = "traffic is given: kernels for every load" if several else "there is no traffic to serve"
        if single != "auto":
            why = "opt_num_tokens is given"
        sheet.change("multiple_profiles", "enable" if several else "disable", why)
    if single == "auto" and sheet.on("multiple_profiles"):
        # The builder takes one of the two only, see `tensorrt_refusals._tokens`.
        sheet.change("opt_num_tokens", None, "multiple_profiles takes its place")
    elif single == "auto":
        usual = engine.max_batch_size * sheet.values["max_beam_width"]
        if traffic is not None:
            usual = profiles.usual_tokens(traffic, engine.max_batch_size)
        sheet.change(
            "opt_num_tokens", min(usual, most), "traffic says so" if traffic else "a token per request"
        )
    elif single is not None and single > most:
        sheet.change("opt_num_tokens", most, "max_num_tokens is no more")


def _logits(sheet: Sheet) -> None:
    """Context logits are what the gate scores; the command refuses them beside draft tokens."""
    if sheet.on("gather_all_token_logits"):
        sheet.switch("gather_generation_logits", on=True, why="gather_all_token_logits says so")
    if sheet.request.speculative is None:
        return
    why = "trtllm-build refuses context logits beside draft tokens; the gate scores a twin without them"
    sheet.switch("gather_context_logits", on=False, why=why)
    sheet.switch("gather_all_token_logits", on=False, why=why)
