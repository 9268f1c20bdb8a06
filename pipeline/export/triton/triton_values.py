"""One source of truth for every value of a Triton export, and the reasons why a combination cannot serve."""

from dataclasses import dataclass
from typing import get_args

from pipeline.backend.deployment import Deployment, EngineLimits
from pipeline.drafting.eagle import tree
from pipeline.drafting.lookahead import draft_tokens, sizes
from pipeline.drafting.medusa_tree import choices, misfit, spelt
from pipeline.export.export_refusals import paged, reusable, several_hosts
from pipeline.export.triton.triton_settings import TritonSettings
from pipeline.export.triton.triton_tensors import TYPED_LOGITS, LogitsType

OLDEST, REMOVED = (0, 12), (1, 3)
"""Releases of TensorRT-LLM: first whose engines we build, first whose Triton backend has no engine path."""

DECODING = {"medusa": "medusa", "eagle": "eagle", "lookahead_decoding": "lookahead"}
"""Speculative mode of an engine -> decoding mode of the backend; an external draft needs none."""

LOOKAHEAD_SINCE = (0, 19)
"""Release whose backend reads the lookahead sizes from its configuration."""

WINDOWED_CHUNKS = (0, 19)
"""First release seen to keep the keys of a chunk beside those of a window (`temporaryKvCacheLength` in
`cpp/tensorrt_llm/batch_manager/trtGptModelInflightBatching.cpp`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What the configurations of one engine say, each value once."""

    name: str
    """Name of the Triton model that holds the engine."""
    engine_dir: str
    tokenizer_dir: str
    max_batch_size: int
    decoupled: bool
    queue_delay_us: int
    queue_size: int
    parameters: dict[str, str]
    """Of the model that holds the engine, as the backend reads them."""
    settings: TritonSettings


def limits_of(deployment: Deployment) -> EngineLimits:
    """The engine's limits; only TensorRT engines have them."""
    assert deployment.limits is not None
    return deployment.limits


def resolve(
    deployment: Deployment, settings: TritonSettings, *, name: str, engine_dir: str, engines: int = 1
) -> Values:
    """The values for one of so many engines on the same GPUs; the engine says what settings leave open."""
    limits = limits_of(deployment)
    beams = settings.max_beam_width or limits.max_beam_width
    optional = {
        "max_tokens_in_paged_kv_cache": settings.max_kv_tokens,
        "max_attention_window_size": _join_windows(limits.windows),
        "decoding_mode": settings.decoding_mode or DECODING.get(limits.speculation or ""),
        **_choose_tree(limits, settings),
        **_set_lookahead(deployment, limits, settings),
    }
    parameters = {
        "gpt_model_type": "inflight_fused_batching",
        "gpt_model_path": engine_dir,
        "max_beam_width": beams,
        "batch_scheduler_policy": settings.scheduler_policy,
        # Each engine takes its fraction of what is free; with a draft, two engines share one GPU.
        "kv_cache_free_gpu_mem_fraction": settings.kv_cache_fraction / engines,
        "kv_cache_host_memory_bytes": settings.kv_host_memory_bytes,
        "enable_kv_cache_reuse": reuses(limits, settings),
        "enable_chunked_context": chunks(deployment, limits, settings),
        # with a draft, BLS looks for proposals after the prompt, so the answer must hold it
        "exclude_input_in_output": engines == 1 if settings.exclude_input is None else settings.exclude_input,
        "gpu_weights_percent": settings.gpu_weights_percent,
        **{key: value for key, value in optional.items() if value is not None},
    }
    return Values(
        name=name,
        engine_dir=engine_dir,
        tokenizer_dir=f"{engine_dir}/tokenizer",
        max_batch_size=settings.max_batch_size or deployment.max_batch_size,
        decoupled=settings.decoupled,
        queue_delay_us=settings.queue_delay_us,
        queue_size=settings.queue_size,
        parameters={key: _format_value(value) for key, value in parameters.items()},
        settings=settings,
    )


def reuses(limits: EngineLimits, settings: TritonSettings) -> bool:
    """Whether KV blocks of common prefixes are kept."""
    return reusable(limits) if settings.kv_cache_reuse is None else settings.kv_cache_reuse


def chunks(deployment: Deployment, limits: EngineLimits, settings: TritonSettings) -> bool:
    """Whether long prompts are processed in pieces."""
    # what the user asks for is checked in `_check_context`; this is only the default
    able = limits.paged_context and limits.speculation != "eagle"
    able = able and (limits.windows is None or deployment.release >= WINDOWED_CHUNKS)
    return able if settings.chunked_context is None else settings.chunked_context


def logits_type(deployment: Deployment) -> LogitsType:
    """Type of the logits tensors: the engine's."""
    return "float16" if limits_of(deployment).logits_dtype == "float16" else "float32"


def reasons(deployment: Deployment, settings: TritonSettings) -> list[str]:
    """Every reason why Triton cannot serve this TensorRT engine with these settings."""
    limits = limits_of(deployment)
    return [
        *_check_version(deployment, limits),
        *_check_sizes(deployment, limits, settings),
        *_check_context(deployment, limits, settings),
        *_check_decoding(deployment, limits, settings),
        *_check_draft(deployment, limits, settings),
    ]


def _check_version(deployment: Deployment, limits: EngineLimits) -> list[str]:
    problems = []
    if not OLDEST <= deployment.release < REMOVED:
        problems.append(
            f"the engine was built by TensorRT-LLM {deployment.version or 'of no known version'}; "
            "Triton's engine "
            f"path is known from {OLDEST[0]}.{OLDEST[1]} to 1.2"
        )
    if limits.logits_dtype not in get_args(LogitsType):
        problems.append(
            f"the engine's logits are {limits.logits_dtype}; Triton takes {', '.join(get_args(LogitsType))}"
        )
    elif limits.logits_dtype != "float32" and deployment.release < TYPED_LOGITS:
        problems.append(
            f"the engine's logits are {limits.logits_dtype}, and the backend of {deployment.version} "
            "declares "
            "float32; build with logits_dtype float32"
        )
    return [*problems, *several_hosts(deployment)]


def _check_sizes(deployment: Deployment, limits: EngineLimits, settings: TritonSettings) -> list[str]:
    problems = []
    if (settings.max_batch_size or 0) > deployment.max_batch_size:
        problems.append(
            f"max_batch_size {settings.max_batch_size} exceeds the engine's {deployment.max_batch_size}"
        )
    if (settings.max_beam_width or 0) > limits.max_beam_width:
        problems.append(
            f"max_beam_width {settings.max_beam_width} exceeds the engine's {limits.max_beam_width}"
        )
    if settings.gpu_weights_percent < 1 and not limits.weight_streaming:
        problems.append(
            "gpu_weights_percent below 1 needs an engine built with weight_streaming; leave it at 1"
        )
    return problems


def _check_context(deployment: Deployment, limits: EngineLimits, settings: TritonSettings) -> list[str]:
    features = {"kv_cache_reuse": settings.kv_cache_reuse, "chunked_context": settings.chunked_context}
    problems = paged(limits, features)
    if limits.windows is None:
        return problems
    if settings.chunked_context and deployment.release < WINDOWED_CHUNKS:
        problems.append(
            f"chunked_context: beside layers with a window it is known from TensorRT-LLM 0.19; this engine "
            f"was built by {deployment.version}; leave it out"
        )
    if (settings.max_beam_width or limits.max_beam_width) > 1:
        problems.append("max_beam_width: layers with a window have no beam search; choose 1")
    return problems


def _check_decoding(deployment: Deployment, limits: EngineLimits, settings: TritonSettings) -> list[str]:
    built = DECODING.get(limits.speculation or "")
    problems, mode = [], settings.decoding_mode
    if mode in DECODING.values() and mode != built:
        problems.append(
            f"decoding_mode {mode} needs an engine built for it; this one is for "
            f"{limits.speculation or 'none'}"
        )
    elif mode is not None and built is not None and mode != built:
        problems.append(
            f"decoding_mode {mode} does not suit an engine built for {limits.speculation}; leave it out"
        )
    beams = settings.max_beam_width or limits.max_beam_width
    if (mode == "beam_search" and beams == 1) or (mode in ("top_k", "top_p", "top_k_top_p") and beams > 1):
        problems.append(f"decoding_mode {mode} does not suit max_beam_width {beams}; leave one of them out")
    if settings.draft_choices is not None and built not in ("medusa", "eagle"):
        problems.append("draft_choices needs an engine built for medusa or eagle; leave it out")
    # EAGLE has no number of heads to check a tree against
    if settings.draft_choices is not None and limits.speculation == "medusa" and limits.medusa_heads:
        problems += filter(None, [misfit(settings.draft_choices, limits.medusa_heads, limits.max_draft_len)])
    return [*problems, *_check_lookahead(deployment, limits, settings)]


def _check_lookahead(deployment: Deployment, limits: EngineLimits, settings: TritonSettings) -> list[str]:
    """Lookahead engines are loaded with sizes of which they have room; earlier backends can be told none."""
    if limits.speculation != "lookahead_decoding":
        has_lookahead = settings.lookahead is not None
        return (
            ["lookahead needs an engine built for lookahead_decoding; leave it out"] if has_lookahead else []
        )
    if deployment.release < LOOKAHEAD_SINCE:
        return [
            f"the Triton backend of TensorRT-LLM {deployment.version} cannot receive the sizes that a "
            "lookahead engine needs; build with 0.19 or later"
        ]
    chosen = _choose_lookahead(limits, settings)
    needed = draft_tokens(*chosen)
    # the pattern of the setting lets a 0 through
    if 0 in chosen or needed > limits.max_draft_len:
        return [
            f"lookahead {','.join(map(str, chosen))} proposes {needed} tokens per step; the engine has room "
            f"for {limits.max_draft_len}: give smaller sizes of at least 1, or leave it out"
        ]
    return []


def _check_draft(deployment: Deployment, limits: EngineLimits, settings: TritonSettings) -> list[str]:
    """An external draft: both engines, both with KV reuse, the draft no larger than the target allows."""
    if limits.speculation != "draft_tokens_external":
        return []
    draft = deployment.draft
    if draft is None or draft.limits is None:
        return [
            "the engine expects draft tokens, and the version has no draft engine; build the pair as "
            "one recipe"
        ]
    return [*_check_bls(settings), *_check_pair(deployment, draft, settings)]


def _check_bls(settings: TritonSettings) -> list[str]:
    """What NVIDIA's tensorrt_llm_bls needs to propose and check tokens (its lib/decode.py)."""
    problems = []
    if settings.decoupled:
        problems.append("decoupled: a draft model works without it only; leave it out")
    if settings.exclude_input:
        problems.append("exclude_input: proposals are looked for after the prompt; leave it out")
    return problems


def _check_pair(deployment: Deployment, draft: Deployment, settings: TritonSettings) -> list[str]:
    """Where the two engines do not go together."""
    limits, draft_limits = limits_of(deployment), limits_of(draft)
    problems = []
    if limits.windows is not None or draft_limits.windows is not None:
        problems.append("a draft model needs kv_cache_reuse, which layers with a window shut out")
    # elif: with windows there is no reuse, and the remedy above would be wrong
    elif not (reuses(limits, settings) and reuses(draft_limits, settings)):
        problems.append(
            "a draft model needs kv_cache_reuse in both engines; build both with use_paged_context_fmha"
        )
    if (draft.tp, draft.pp) != (deployment.tp, deployment.pp):
        problems.append(
            f"the draft engine has tp {draft.tp}, pp {draft.pp}, the engine tp {deployment.tp}, pp "
            f"{deployment.pp}; "
            "one start of the server gives both the same ranks"
        )
    # BLS sends each request to both engines, so the smaller one decides
    if (settings.max_batch_size or deployment.max_batch_size) > draft.max_batch_size:
        problems.append(
            f"the draft engine serves {draft.max_batch_size} requests at once; choose that max_batch_size"
        )
    if draft_limits.logits_dtype != limits.logits_dtype:
        problems.append(
            f"logits are {limits.logits_dtype} there and {draft_limits.logits_dtype} in the draft engine"
        )
    return problems


def _choose_tree(limits: EngineLimits, settings: TritonSettings) -> dict[str, str | None]:
    """The tree of proposals: the one asked for, else the one that the engine has room for."""
    if settings.draft_choices:
        return {f"{limits.speculation}_choices": settings.draft_choices}
    if limits.speculation == "eagle":
        # the tree that was built in (`drafting.eagle`): another one would not fit the engine
        return {"eagle_choices": spelt(tree(limits.max_draft_len))}
    if limits.speculation != "medusa" or not limits.medusa_heads:
        return {}
    return {"medusa_choices": spelt(choices(limits.medusa_heads, limits.max_draft_len))}


def _set_lookahead(
    deployment: Deployment, limits: EngineLimits, settings: TritonSettings
) -> dict[str, object]:
    """Sizes of lookahead decoding: those asked for, else those that the engine has room for."""
    if limits.speculation != "lookahead_decoding":
        return {}
    names = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
    return dict(zip(names, _choose_lookahead(limits, settings), strict=True))


def _choose_lookahead(limits: EngineLimits, settings: TritonSettings) -> tuple[int, int, int]:
    if settings.lookahead is None:
        return sizes(limits.max_draft_len)
    window, ngram, verification = map(int, settings.lookahead.split(","))
    return window, ngram, verification


def _join_windows(windows: tuple[int, ...] | None) -> str | None:
    """One number per layer, as the backend reads a list."""
    return None if windows is None else ",".join(str(window) for window in windows)


def _format_value(value: object) -> str:
    # the backend reads `true`, not Python's `True`
    return str(value).lower() if isinstance(value, bool) else str(value)
