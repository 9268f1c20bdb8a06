"""Whether an engine fits a GPU, from the recipe and `config.json` alone; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipeline import engines
from pipeline.backend import memory_formulas as formulas
from pipeline.backend.build_request import BuildRequest
from pipeline.backend.engine_memory import Limits
from pipeline.backend.protocol import Backend
from pipeline.checkpoint.rank_place import Place
from pipeline.checkpoint.slicing import rank_bytes, stage_layers
from pipeline.fit.result import Fit, RankMemory, Verdict
from pipeline.process.gpus import GpuType
from recipes.precision import Precision
from recipes.schema import Engine

MAX_BATCH = 65536
"""Batches are not searched beyond this."""


@dataclass(frozen=True)
class Planner:
    """One engine on one type of GPU; what does not change with its limits is computed once."""

    request: BuildRequest
    target: GpuType

    def fit(self) -> Fit:
        """Predicts everything but the fix."""
        ranks = self.ranks(self.request.engine)
        # Every rank keeps a part of every request, so the tightest one decides for all.
        fullest = max(ranks, key=lambda rank: rank.used_bytes)
        requests = min(rank.requests for rank in ranks)
        fit = Fit(
            ranks=ranks,
            build_gpu_bytes=self._build_gpu_bytes(ranks),
            build_host_bytes=formulas.build_host_bytes(max(rank.weights for rank in ranks)),
            kv_tokens=min(self.tokens(rank) for rank in ranks),
            requests=requests,
            largest_batch=self._largest("max_batch_size", MAX_BATCH),
            largest_seq_len=self._largest("max_seq_len", self.request.shape.max_position_embeddings),
            traffic_requests=self._traffic(fullest),
            verdict="fits",
            reason="",  # both are replaced below: they are read off the other fields
        )
        return replace(fit, verdict=self.verdict(ranks), reason=self._reason(fit))

    def verdict(self, ranks: Sequence[RankMemory]) -> Verdict:
        """The verdict alone."""
        requests = min(rank.requests for rank in ranks)
        # All ranks are on one type of GPU: the first one's room is everybody's.
        if requests < 1 or self._build_gpu_bytes(ranks) > ranks[0].room:
            return "impossible"
        return "fits" if requests >= self.request.engine.max_batch_size else "queues"

    def ranks(self, engine: Engine) -> tuple[RankMemory, ...]:
        """The memory of every rank, at these limits; the layout is the planner's own."""
        request = replace(self.request, engine=engine)
        stages = self.stages(request, self._backend.memory.limits(request))
        places = [Place(engine.tp, engine.pp, rank, engine.ep) for rank in range(engine.world_size)]
        # Ranks of a stage are alike, so each stage is computed once.
        return tuple(replace(stages[place.pp_rank], rank=place.rank) for place in places)

    def stages(self, request: BuildRequest, sizes: Limits) -> list[RankMemory]:
        """The memory of the first rank of every stage."""
        return [self.stage(request, sizes, stage) for stage in range(request.engine.pp)]

    def _build_gpu_bytes(self, ranks: Sequence[RankMemory]) -> int:
        """GPU memory that building a rank wants; 0 where the backend builds nothing on a GPU.

        The twin of an engine that checks drafts is built too: it computes the logits of every token.
        """
        # Parts are built one after another, so the larger one decides, not the sum.
        every = [*ranks, *(self._twin.ranks(self._twin.request.engine) if self._twin else ())]
        memory = self._backend.memory
        return max(memory.build_gpu_bytes(rank.weights, rank.activations) for rank in every)

    @cached_property
    def _twin(self) -> "Planner | None":
        """The same engine without drafts, which the gate scores."""
        if self.request.speculative is None:
            return None
        return Planner(replace(self.request, speculative=None, draft=None, heads_bytes=0), self.target)

    @cached_property
    def _backend(self) -> Backend:
        return engines.backend(self.request.engine.backend)

    @cached_property
    def _weights(self) -> list[int]:
        """Weights per stage."""
        request, engine = self.request, self.request.engine
        every = rank_bytes(
            request.shape, request.precision, engine.tp, engine.pp, request.kv_cache, engine.ep
        )
        return every[:: engine.tp]  # tp_rank changes fastest: the first of each stage

    @cached_property
    def _drafting(self) -> "Planner | None":
        """The draft model's engine: cut as the target's, with a cache in its own dtype."""
        spec, draft, engine = self.request.speculative, self.request.draft, self.request.engine
        if spec is None or draft is None or spec.mode != "draft_tokens_external":
            return None
        alone = replace(
            self.request,
            shape=draft,
            precision=Precision.parse(spec.draft_format),
            # A dense draft model has no experts that `ep` could spread.
            engine=engine if draft.experts else engine.model_copy(update={"ep": 1}),
            kv_cache="auto",
            speculative=None,
            draft=None,
        )
        return Planner(alone, self.target)

    @cached_property
    def _head_weights(self) -> int:
        """Heads that propose tokens, on a rank of the last stage."""
        spec, engine, shape = self.request.speculative, self.request.engine, self.request.shape
        if spec is None:
            return 0
        copies = self._backend.memory.head_copies(spec)
        return formulas.head_weight_bytes(shape, spec.mode, engine.tp, self._one_layer, copies)

    def _one_layer(self) -> int:
        """Weights of one unquantized layer on a rank."""
        plain, tp = Precision.parse("none"), self.request.engine.tp
        sizes = [
            rank_bytes(replace(self.request.shape, num_layers=layers), plain, tp, 1)[0] for layers in (1, 2)
        ]
        # Embedding, head and last norm are in both, and cancel out.
        return sizes[1] - sizes[0]

    def stage(self, request: BuildRequest, sizes: Limits, stage: int) -> RankMemory:
        """The memory of the ranks of one stage."""
        shape, engine = request.shape, request.engine
        per_token = formulas.kv_token_bytes(shape, request.kv_cache, engine.tp, engine.pp)
        layers = stage_layers(shape.num_layers, engine.pp, stage)
        per_request = formulas.kv_request_bytes(
            # Windows differ by layer, and so by stage.
            self._backend.memory.cached_tokens(request)[layers.start : layers.stop],
            formulas.kv_layer_bytes(shape, request.kv_cache, engine.tp),
            sizes.seq_len,
            sizes.tokens_per_block,
        )
        proposals = self._proposals(sizes, stage)
        memory = RankMemory(
            rank=0,
            room=self._room(),
            weights=self._weights[stage],
            draft=proposals.used_bytes,
            activations=self._activations(sizes, stage),
            buffers=self._backend.memory.buffer_bytes(self.request, sizes, last_stage=stage == engine.pp - 1),
            context=self._backend.memory.context_bytes(self.request.engine.world_size),
            kv_per_token=per_token + proposals.kv_per_token,
            kv_per_request=per_request + proposals.kv_per_request,
            kv_pool=0,  # follows from all the others
        )
        return replace(memory, kv_pool=max(0, int(sizes.free_fraction * (memory.room - memory.used_bytes))))

    def _proposals(self, sizes: Limits, stage: int) -> "_Proposals":
        """What the draft model, or heads beside the last layer, add to the ranks of a stage."""
        spec, engine = self.request.speculative, self.request.engine
        if self._drafting is not None:
            memory = self._drafting.stage(self._drafting.request, sizes, stage)
            # The process is counted with the target.
            return _Proposals(memory.used_bytes - memory.context, memory.kv_per_token, memory.kv_per_request)
        # Heads are beside the last layer, and so on the last stage.
        if spec is None or stage < engine.pp - 1:
            return _Proposals(0, 0, 0)
        # EAGLE's net is a layer with keys and values; Medusa's heads keep none.
        layers = 1 if spec.mode == "eagle" else 0
        per_token = layers * formulas.kv_layer_bytes(self.request.shape, self.request.kv_cache, engine.tp)
        read = -(-self.request.heads_bytes // engine.tp) if spec.mode == "medusa" else 0
        # The bytes of the heads where they were read, else a formula.
        return _Proposals(read or self._head_weights, per_token, per_token * sizes.seq_len)

    def _activations(self, sizes: Limits, stage: int) -> int:
        shape, engine = self.request.shape, self.request.engine
        # Stages before the last compute no logits.
        head = formulas.head_bytes(shape, engine.tp, sizes.logit_rows if stage == engine.pp - 1 else 0)
        return self._backend.memory.activation_bytes(self.request, sizes.num_tokens) + head

    def _room(self) -> int:
        """What a rank can have: a GPU less its driver; of a host's memory, an equal part."""
        if self._backend.on_gpu:
            return self.target.memory_bytes - formulas.DRIVER_BYTES
        return self.target.memory_bytes // self.request.engine.world_size

    def tokens(self, rank: RankMemory) -> int:
        """Tokens in the KV cache, which TensorRT-LLM rounds up to a block."""
        block = self._backend.memory.limits(self.request).tokens_per_block
        return -(-rank.kv_pool // (rank.kv_per_token * block)) * block

    def _traffic(self, rank: RankMemory) -> int | None:
        traffic = self.request.traffic
        if traffic is None:
            return None
        return rank.kv_pool // (rank.kv_per_token * (traffic.input_tokens + traffic.output_tokens))

    def _largest(self, name: str, most: int) -> int:
        """Largest value of one of the engine's limits at which the whole batch is served; 0: none."""

        def served(value: int) -> bool:
            engine = self.request.engine.model_copy(update={name: value})
            return min(rank.requests for rank in self.ranks(engine)) >= engine.max_batch_size

        # Smaller limits never need more memory, so the served values are all those up to one of them.
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if served(middle) else (low, middle - 1)
        return low

    def _reason(self, fit: Fit) -> str:
        """Why it does not fit, with the numbers."""
        rank, engine = fit.fullest, self.request.engine
        if rank.used_bytes > rank.room:
            return (
                f"rank {rank.rank} needs {_gb(rank.used_bytes)} before any key or value, "
                f"{_gb(rank.weights)} of it weights; the device has {_gb(rank.room)}"
            )
        if not fit.builds:
            return f"building wants {_gb(fit.build_gpu_bytes)} free; the device has {_gb(rank.room)}"
        if fit.requests < 1:
            return (
                f"rank {rank.rank} has {_gb(rank.kv_pool)} for keys and values; one request of "
                f"{engine.max_seq_len} tokens takes {_gb(rank.kv_per_request)}"
            )
        if fit.requests < engine.max_batch_size:
            return (
                f"keys and values of {fit.requests} requests of {engine.max_seq_len} tokens fit at once, "
                f"not of {engine.max_batch_size}; others wait"
            )
        return ""


@dataclass(frozen=True, slots=True)
class _Proposals:
    """Memory of a rank for proposing tokens."""

    used_bytes: int
    kv_per_token: int
    kv_per_request: int


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
