"""What a user may choose about a Triton export."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints

from pipeline.export.export_settings import MemoryFraction, Port, Settings

Choices = Annotated[str, StringConstraints(pattern=r"^\{[0-9, ]+\}(, *\{[0-9, ]+\})*$")]

DecodingMode = Literal["top_k", "top_p", "top_k_top_p", "beam_search", "medusa", "lookahead", "eagle"]


class TritonSettings(Settings):
    """Of the engine path; what is left open follows from the engine."""

    max_batch_size: PositiveInt | None = None
    """Requests that Triton hands over at once; default: the engine's limit."""
    decoupled: bool = False
    """Answers may come in pieces: needed by requests that stream."""
    scheduler_policy: Literal["max_utilization", "guaranteed_no_evict"] = "guaranteed_no_evict"
    """Start as many requests as possible and pause some when the KV cache is full, or never pause one."""
    queue_delay_us: NonNegativeInt = 0
    """Microseconds that Triton waits for more requests; in-flight batching makes waiting pointless."""
    queue_size: NonNegativeInt = 0
    """Requests that may wait before new ones are turned away; 0: any number."""
    kv_cache_fraction: MemoryFraction = 0.9
    """Share of the GPU memory left beside the engine for the KV cache; with a draft, each gets half."""
    max_kv_tokens: PositiveInt | None = None
    """Tokens that the KV cache holds, at most; default: what fits."""
    kv_host_memory_bytes: NonNegativeInt = 0
    """Host memory for KV blocks that leave the GPU."""
    kv_cache_reuse: bool | None = None
    """Keep the KV cache of common prefixes; default: where the engine allows it."""
    chunked_context: bool | None = None
    """Process long prompts in pieces between steps of others; default: where the engine allows it."""
    max_beam_width: PositiveInt | None = None
    """Beams of a request, at most; default: the engine's limit."""
    decoding_mode: DecodingMode | None = None
    """How tokens are picked; default: what the engine was built for, else Triton's own choice."""
    draft_choices: Choices | None = None
    """Tree of proposals of Medusa and EAGLE engines, e.g. `{0}, {0, 0}, {1}`; default: TensorRT-LLM's."""
    lookahead: Annotated[str, StringConstraints(pattern=r"^\d+,\d+,\d+$")] | None = None
    """Window, n-gram and verification set sizes of a lookahead engine; default: what it has room for."""
    gpu_weights_percent: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the weights that stays on the GPU, 0 to 1; below 1 needs weight streaming."""
    exclude_input: bool | None = None
    """Answers do not repeat the prompt; default: true, and false with a draft model."""
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    preprocessing_instances: PositiveInt = 1
    postprocessing_instances: PositiveInt = 1
    bls_instances: PositiveInt | None = None
    """Copies of `tensorrt_llm_bls`, each busy with one request; default: the batch size."""
    http_port: Port = 8000
    grpc_port: Literal[8001] = 8001
    """NVIDIA's `tensorrt_llm_bls` asks the server for its configuration there."""
    metrics_port: Port = 8002
