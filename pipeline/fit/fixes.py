"""The cheapest change after which an engine fits better; pure.

Changes are tried in this order, each planned anew, and the first that helps is named:

1. `kv_cache: fp8`, which costs a calibration and little accuracy, where the GPU and the backend have it
2. smaller limits, which cost capacity: `engine.max_batch_size`, `engine.options.max_num_tokens`,
   `engine.max_seq_len`; at least half of what was asked, and enough for the recipe's traffic
3. more tensor parallelism within one host, which costs GPUs
4. fewer bits per weight, which cost accuracy
5. tensor parallelism and fewer bits together
6. a larger GPU, which costs most
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

from pipeline import engines
from pipeline.backend.build_request import BuildRequest
from pipeline.checkpoint.layout_checks import reasons
from pipeline.fit.planner import Planner
from pipeline.fit.result import Fit, Fix, Verdict
from pipeline.process.gpus import TARGETS, GpuType
from recipes.formats import FORMATS, Format
from recipes.precision import Precision

FP8_SM = 89
HOST_GPUS = 8
"""GPUs of one host, at most."""

LEAST_TOKENS = 1024
"""Smallest `max_num_tokens` that NVIDIA's tuning guide suggests to try."""

SMALLER = ("fp8", "int4_awq")
"""Formats to propose, most bits first."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A changed request and where it would run."""

    request: BuildRequest
    target: GpuType
    change: dict[str, Any]
    why: str


def cheapest(request: BuildRequest, target: GpuType, fit: Fit) -> Fix | None:
    """The first change, in order of cost, with a better verdict; for a queue, the one that ends it."""
    order = get_args(Verdict)
    # An engine that cannot be built may come to queue; one that queues has to fit.
    needed = min(order.index(fit.verdict) + 1, len(order) - 1)
    for candidate in _candidates(request, target, fit):
        # A change that the backend refuses would put one error in another's place.
        if _refused(candidate.request):
            continue
        planner = Planner(candidate.request, candidate.target)
        verdict = planner.verdict(planner.ranks(candidate.request.engine))
        if order.index(verdict) >= needed:
            return Fix(change=candidate.change, verdict=verdict, why=candidate.why)
    return None


def _refused(request: BuildRequest) -> bool:
    """Whether the backend would refuse the recipe so changed."""
    return bool(engines.backend(request.engine.backend).reasons(request))


def _candidates(request: BuildRequest, target: GpuType, fit: Fit) -> Iterator[_Candidate]:
    yield from _eight_bit_cache(request, target)
    yield from _limits(request, target, fit)
    split = list(_more_ranks(request, target))  # tried alone first, and later with fewer bits each
    yield from split
    yield from _fewer_bits(request, target)
    for wider in split:
        for smaller in _fewer_bits(wider.request, target):
            yield replace(
                smaller, change={**wider.change, **smaller.change}, why="more GPUs and fewer bits per weight"
            )
    yield from _larger_gpu(request, target)


def _eight_bit_cache(request: BuildRequest, target: GpuType) -> Iterator[_Candidate]:
    """An FP8 cache, where the backend builds one beside the recipe's weights."""
    memory = engines.backend(request.engine.backend).memory
    allowed = all(memory.fp8_cache_beside(fmt) for fmt in request.precision.formats)
    if request.kv_cache == "auto" and target.sm >= FP8_SM and allowed:
        yield _Candidate(
            replace(request, kv_cache="fp8"), target, {"kv_cache": "fp8"}, "half the bytes per key and value"
        )


def _limits(request: BuildRequest, target: GpuType, fit: Fit) -> Iterator[_Candidate]:
    """Smaller limits; with the largest batch that is served whole, else shorter passes or requests."""
    engine, traffic = request.engine, request.traffic
    # Floors: half of what was asked, and what the recipe's traffic needs.
    requests = max(engine.max_batch_size // 2, (traffic and traffic.concurrency) or 1)
    length = max(engine.max_seq_len // 2, traffic.input_tokens + traffic.output_tokens if traffic else 1)
    if requests <= fit.largest_batch < engine.max_batch_size:
        yield _changed(request, target, "max_batch_size", fit.largest_batch, "fewer requests at once")
    tokens = engines.backend(engine.backend).memory.limits(request).num_tokens
    # A pass holds one token of each request at least.
    while (tokens := tokens // 2) >= max(LEAST_TOKENS, engine.max_batch_size):
        shorter = engine.model_copy(update={"options": {**engine.options, "max_num_tokens": tokens}})
        change = {"engine.options.max_num_tokens": tokens}
        yield _Candidate(replace(request, engine=shorter), target, change, "fewer tokens per pass")
    if length <= fit.largest_seq_len < engine.max_seq_len:
        yield _changed(request, target, "max_seq_len", fit.largest_seq_len, "shorter requests")


def _changed(request: BuildRequest, target: GpuType, name: str, value: int | str, why: str) -> _Candidate:
    engine = request.engine.model_copy(update={name: value})
    return _Candidate(replace(request, engine=engine), target, {f"engine.{name}": value}, why)


def _more_ranks(request: BuildRequest, target: GpuType) -> Iterator[_Candidate]:
    """Twice, four times and so on the tensor-parallel ranks, where the model can be split so."""
    tp = request.engine.tp
    while (tp := 2 * tp) * request.engine.pp <= HOST_GPUS:
        if not reasons(request.shape, request.precision, tp, request.engine.pp, request.engine.ep):
            yield _changed(request, target, "tp", tp, f"{tp * request.engine.pp} GPUs")


def _fewer_bits(request: BuildRequest, target: GpuType) -> Iterator[_Candidate]:
    """Every linear in a format of fewer bits than the recipe's largest."""
    engine, most = request.engine, max(fmt.weight_bits for fmt in request.precision.formats)
    for fmt in (FORMATS[name] for name in SMALLER):
        smaller, why = Precision(fmt), f"{fmt.weight_bits}-bit weights"
        if fmt.weight_bits >= most or not _serves(fmt, request, target):
            continue
        if not reasons(request.shape, smaller, engine.tp, engine.pp, engine.ep):
            yield _Candidate(replace(request, precision=smaller), target, {"format": fmt.name}, why)


def _serves(fmt: Format, request: BuildRequest, target: GpuType) -> bool:
    """Whether the GPU computes a format, and the backend builds the recipe's cache beside it."""
    memory = engines.backend(request.engine.backend).memory
    return target.sm >= fmt.min_sm and (request.kv_cache == "auto" or memory.fp8_cache_beside(fmt))


def _larger_gpu(request: BuildRequest, target: GpuType) -> Iterator[_Candidate]:
    """GPUs with more memory, smallest first, that serve the recipe's formats."""
    served = [FP8_SM * (request.kv_cache == "fp8"), *(fmt.min_sm for fmt in request.precision.formats)]
    larger = {name: gpu for name, gpu in TARGETS.items() if gpu.memory_bytes > target.memory_bytes}
    for name, gpu in sorted(larger.items(), key=lambda item: item[1].memory_bytes):
        # Ranks that are joined by NVLink today are not moved to GPUs that share PCIe.
        joined = gpu.nvlink or not target.nvlink or request.engine.tp == 1
        if gpu.sm >= max(served) and joined:
            yield _changed(request, gpu, "target", name, f"{gpu.memory_bytes / 1e9:.0f} GB per GPU")
