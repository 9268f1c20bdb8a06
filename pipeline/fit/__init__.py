"""Predicts, before any work, what memory an engine takes and whether its GPUs have it; pure."""

from dataclasses import replace

from pipeline import engines
from pipeline.backend.build_request import BuildRequest
from pipeline.backend.memory_formulas import build_host_bytes
from pipeline.checkpoint.slicing import rank_bytes
from pipeline.fit.fixes import cheapest
from pipeline.fit.planner import Planner
from pipeline.fit.result import Fit
from pipeline.process.gpus import GpuType


def host_bytes(request: BuildRequest) -> int:
    """Host memory that building one rank takes."""
    engine = request.engine
    ranks = rank_bytes(request.shape, request.precision, engine.tp, engine.pp, request.kv_cache, engine.ep)
    return build_host_bytes(max(ranks))


def predict(request: BuildRequest, target: GpuType) -> Fit:
    """How the engine fits GPUs of one type, one per rank, and the cheapest change where it does not.

    The layout must be one that the model can be cut into (`pipeline.checkpoint.layout_checks.reasons`). For
    a backend without GPUs, whose ranks share a host, the target's memory is the host's.
    """
    fit = Planner(request, target).fit()
    if fit.verdict == "fits" or not engines.backend(request.engine.backend).on_gpu:
        return fit
    return replace(fit, fix=cheapest(request, target, fit))
