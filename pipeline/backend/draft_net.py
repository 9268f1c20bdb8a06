"""An EAGLE net as its header and config.json describe it, and what keeps one out of rank files; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.backend.build_request import BuildRequest
from pipeline.checkpoint import eagle_heads
from pipeline.drafting.heads import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftNet:
    """A net of one layer that proposes tokens."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Kind]
    """Name -> type and shape."""
    path: str
    """Its directory, for messages."""


def rank_file_reasons(net: DraftNet, request: BuildRequest) -> Iterator[str]:
    """Why a net cannot be written into the model's rank files; SourceError for a net that is none."""
    engine, heads = request.engine, eagle_heads.read(net.config, net.tensors, net.path)
    yield from eagle_heads.reasons(heads, request.shape, request.kv_cache, engine.tp, engine.pp)
