"""Heads as a second input of a sharded checkpoint: they come into the rank files and config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.checkpoint import eagle_heads, medusa_heads
from pipeline.checkpoint.rank_place import Place
from pipeline.checkpoint.tensor_parts import LocalTensor
from pipeline.drafting.heads import beside, kinds, open_heads
from pipeline.errors import BuildFailed
from pipeline.models.shape import ModelShape
from pipeline.step.step_parameters import ShardedJob
from pipeline.weights.tensors import Checkpoint

PLAIN = "plain_config.json"
"""The config.json of the same rank files as a model without its heads, whose tensors are spare then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithHeads:
    """The heads of one sharded checkpoint."""

    source: Checkpoint
    heads: medusa_heads.Medusa | eagle_heads.Eagle
    shape: ModelShape
    tp: int
    pp: int
    max_draft_len: int

    def beside(self, checkpoint: Checkpoint) -> Checkpoint:
        """The model's checkpoint with the heads' tensors in it."""
        return beside(checkpoint, self.source)

    def extended(self, ranks: Sequence[Sequence[LocalTensor]]) -> list[list[LocalTensor]]:
        """The tensors of every rank file, with those of the heads."""
        # No ep: neither Medusa nor EAGLE extends an architecture with experts (BASES).
        places = [Place(self.tp, self.pp, rank) for rank in range(len(ranks))]
        return [[*tensors, *self._tensors(place)] for tensors, place in zip(ranks, places, strict=True)]

    def config(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The config.json of the model with its heads."""
        if isinstance(self.heads, eagle_heads.Eagle):
            return eagle_heads.config(base, self.heads, self.shape, self.max_draft_len, self.tp)
        return medusa_heads.config(base, self.heads, self.max_draft_len, self.shape.model_type)

    def _tensors(self, place: Place) -> list[LocalTensor]:
        if isinstance(self.heads, eagle_heads.Eagle):
            return eagle_heads.tensors(self.heads, self.shape, place, self.max_draft_len)
        return medusa_heads.tensors(self.heads, self.shape, place)


def read(job: ShardedJob, shape: ModelShape) -> WithHeads | None:
    """Opens the heads among a job's inputs; None without, BuildFailed where they do not go with the model."""
    params, proposals = job.params, job.params.speculative
    if "heads" not in job.inputs or proposals is None:
        return None
    source = open_heads(job.inputs["heads"])
    tp, pp, length = params.tp, params.pp, proposals.max_draft_len
    heads: medusa_heads.Medusa | eagle_heads.Eagle
    if proposals.mode == "eagle":
        heads = eagle_heads.read(source.config, kinds(source))
        impossible = list(eagle_heads.reasons(heads, shape, params.kv_cache, tp, pp))
    else:
        heads = medusa_heads.read(kinds(source))
        impossible = list(medusa_heads.reasons(heads, shape, length, tp, pp))
    if impossible:
        raise BuildFailed("\n  ".join(["the heads do not go with the model", *impossible]))
    return WithHeads(source=source, heads=heads, shape=shape, tp=tp, pp=pp, max_draft_len=length)
