"""A fit as a table and sentences."""

from collections.abc import Iterator
from typing import Any

from pipeline.fit.result import Fit, RankMemory
from pipeline.process.gpus import GpuType
from pipeline.units import size
from recipes.schema import Engine


def rows(fit: Fit, target: GpuType) -> list[dict[str, Any]]:
    """One row per kind of rank, in units of 10^9 bytes; ranks that are alike share one."""
    alike: dict[tuple[int, ...], list[RankMemory]] = {}
    for rank in fit.ranks:
        alike.setdefault((rank.used_bytes, rank.kv_pool), []).append(rank)
    return [_row(ranks, target) for ranks in alike.values()]


def _row(ranks: list[RankMemory], target: GpuType) -> dict[str, Any]:
    rank = ranks[0]
    first, last = rank.rank, ranks[-1].rank
    parts = {
        "weights": rank.weights,
        **({"draft": rank.draft} if rank.draft else {}),
        "activations": rank.activations,
        "buffers": rank.buffers,
        "context": rank.context,
        "keys_and_values": rank.kv_pool,
        "total": rank.used_bytes + rank.kv_pool,
        "gpu": target.memory_bytes,
    }
    return {
        "rank": str(first) if first == last else f"{first}-{last}",
        **{name: round(nbytes / 1e9, 2) for name, nbytes in parts.items()},
    }


def sentences(fit: Fit, engine: Engine) -> Iterator[str]:
    """What the table means for the engine's limits, the verdict last."""
    yield (
        f"room for {fit.kv_tokens:,} tokens: {fit.requests:,} requests of {engine.max_seq_len} tokens at once"
        + (f", {fit.traffic_requests:,} of typical length" if fit.traffic_requests is not None else "")
    )
    yield (
        f"largest batch at {engine.max_seq_len} tokens: {fit.largest_batch:,}; "
        f"largest length at batch {engine.max_batch_size}: {fit.largest_seq_len:,}"
    )
    if fit.build_gpu_bytes:
        yield (
            f"building a rank wants {size(fit.build_gpu_bytes)} free on its GPU "
            f"and {size(fit.build_host_bytes)} of host memory"
        )
    verdict = {"fits": "fits", "queues": "serves, with a queue", "impossible": "does not fit"}[fit.verdict]
    yield f"{verdict} on {engine.world_size} x {engine.target}" + (f": {fit.reason}" if fit.reason else "")
    if fit.fix:
        yield f"cheapest change: {fit.fix}"
