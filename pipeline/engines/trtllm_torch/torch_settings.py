"""Every LLM API option with its effective value, from the recipe and the version's table; pure.

A null is an option that is not passed: its value is found by the library itself, or it is a prototype that
nobody asked for. Only CUDA graphs are switched off by passing a null.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.backend.build_request import BuildRequest
from pipeline.engines.trtllm_torch.llm_options import Table
from pipeline.engines.trtllm_torch.torch_options import model

OFF_BY_NULL = ("cuda_graph_config",)
"""Options whose null is passed on."""

DRAFT = "draft"
"""Directory of the draft model in an engine, as its options name it."""

MAX_NUM_TOKENS = 8192
"""Tokens of all requests in one pass, where the recipe asks for no other number."""

KEPT = ("stable", "beta")
"""Status of options that are passed at their defaults; other options come and go between versions."""

NEAR = (0.75, 1.0, 1.25)
"""Batch sizes about the usual one that get CUDA graphs of their own, as shares of it."""

SPECULATIVE = {
    "draft_tokens_external": ("Draft_Target", "DraftTarget"),
    "eagle": ("Eagle3", "Eagle"),
}
"""Mode of the recipe -> its `decoding_type`, under the names that versions give it."""


def settings(request: BuildRequest, table: Table) -> dict[str, Any]:
    """Every option with its effective value, as JSON; a ValidationError for options that are none."""
    engine, options = request.engine, validated(request, table)
    defaults = {
        # Whatever the status of `enable_autotuner`: the build reads it.
        name: option.default if option.status in KEPT or name == "enable_autotuner" else None
        for name, option in table.options.items()
    }
    sizes = {
        "tensor_parallel_size": engine.tp,
        "pipeline_parallel_size": engine.pp,
        "max_batch_size": engine.max_batch_size,
        "max_seq_len": engine.max_seq_len,
        "max_input_len": engine.max_seq_len,
        "max_beam_width": 1,
        "max_num_tokens": max_num_tokens(request),
        "enable_chunked_prefill": needs_chunks(request),
    }
    if request.shape.experts is not None:
        sizes |= {
            "moe_expert_parallel_size": engine.ep,
            "moe_tensor_parallel_size": engine.tp // engine.ep,
        }
    parts = {name: part for name, part in _parts(request, table).items() if part is not None}
    merged = {name: _merged(part, options, name) for name, part in parts.items()}
    # Later ones prevail; `merged` comes last, for it has the recipe's nested keys beside ours.
    return dict(sorted((defaults | sizes | options | merged).items()))


def validated(request: BuildRequest, table: Table) -> dict[str, Any]:
    """The options that the recipe gives, after the version's model accepted them."""
    # Unset fields would otherwise cover the defaults with nulls.
    return model(table.version).model_validate(request.engine.options).model_dump(exclude_unset=True)


def passed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the library is given, as its YAML file holds them."""
    return {name: value for name, value in settings.items() if value is not None or name in OFF_BY_NULL}


def _parts(request: BuildRequest, table: Table) -> dict[str, dict[str, Any] | None]:
    """Nested configurations, each with the keys that are always passed."""
    options = table.configs["KvCacheConfig"]
    kv_cache = {
        name: options[name].default
        for name in (
            "enable_block_reuse",
            "enable_partial_reuse",
            "free_gpu_memory_fraction",
            "tokens_per_block",
        )
        if name in options
    }
    kv_cache["dtype"] = "fp8" if request.kv_cache == "fp8" else "auto"
    policy = table.configs["SchedulerConfig"]["capacity_scheduler_policy"].default
    experts = {"backend": table.configs["MoeConfig"]["backend"].default}
    return {
        "kv_cache_config": kv_cache,
        "cuda_graph_config": {"batch_sizes": batch_sizes(request), "enable_padding": True},
        "scheduler_config": {"capacity_scheduler_policy": policy},
        "moe_config": experts if request.shape.experts is not None else None,
        "speculative_config": _speculative(request, table),
    }


def _merged(part: Mapping[str, Any], options: Mapping[str, Any], name: str) -> Any:
    """The recipe's own keys over ours; a null of the recipe stands."""
    if name in options and options[name] is None:
        return None
    return dict(sorted({**part, **options.get(name, {})}.items()))


def _speculative(request: BuildRequest, table: Table) -> dict[str, Any] | None:
    if request.speculative is None or request.speculative.mode not in SPECULATIVE:
        return None
    names = SPECULATIVE[request.speculative.mode]
    # Versions spell it in different ways; the table has the one that is understood.
    kind = next(name for name in names if name in table.speculative)
    return {
        "decoding_type": kind,
        "max_draft_len": request.speculative.max_draft_len,
        "speculative_model_dir": DRAFT,
    }


def longest_prompt(request: BuildRequest) -> int:
    """Tokens of the longest prompt that the engine must take."""
    traffic = request.traffic
    if traffic is not None and traffic.max_input_tokens is not None:
        return traffic.max_input_tokens
    answer = traffic.output_tokens if traffic is not None else 1
    return max(1, request.engine.max_seq_len - answer)


def least_num_tokens(request: BuildRequest) -> int:
    """Tokens of one step when every request decodes: what is drafted, and one."""
    drafted = request.speculative.max_draft_len if request.speculative is not None else 0
    return request.engine.max_batch_size * (drafted + 1)


def max_num_tokens(request: BuildRequest) -> int:
    """Tokens of all requests in one pass: as the recipe says, else as many as can come together."""
    option = request.engine.options.get("max_num_tokens")
    if option is not None:
        return int(option)
    together = request.engine.max_batch_size * request.engine.max_seq_len
    return max(least_num_tokens(request), min(MAX_NUM_TOKENS, together))


def needs_chunks(request: BuildRequest) -> bool:
    """Whether the longest prompt passes through the model in pieces; without them it would be refused."""
    return longest_prompt(request) > max_num_tokens(request)


def batch_sizes(request: BuildRequest) -> list[int]:
    """Batch sizes with a CUDA graph: powers of two, and a few about the usual number of requests.

    Batches are padded to the next one. Each graph takes up to 200 MB (the library's own figure), which speaks
    for few.
    """
    largest = request.engine.max_batch_size
    traffic = request.traffic
    usual = min(largest, traffic.concurrency) if traffic is not None and traffic.concurrency else largest
    powers = {1 << power for power in range(largest.bit_length())}
    # Sizes lie close together about the usual load, so that little is padded there.
    near = {max(1, round(share * usual)) for share in NEAR} if usual < largest else {usual}
    return sorted(size for size in powers | near | {largest} if size <= largest)
