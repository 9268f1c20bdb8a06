"""How an engine fits its GPUs, as values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["impossible", "queues", "fits"]
"""`impossible`: it is not built, does not load, or has no room for one request of full length; `queues`: it
serves, but not `max_batch_size` requests of `max_seq_len` tokens at once; `fits`: it does. Worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Where the memory of one rank goes, in bytes."""

    rank: int
    room: int
    """What programs can have: the device's memory less what the driver keeps."""
    weights: int
    draft: int
    """Weights and activations of the draft model, or of the heads that propose tokens."""
    activations: int
    """Tensors inside the network, for `max_num_tokens` tokens."""
    buffers: int
    """Logits, decoder and bookkeeping of the runtime."""
    context: int
    """CUDA context, kernels and communication, or the process itself."""
    kv_per_token: int
    """One token's keys and values in all layers of the rank, the draft model's too."""
    kv_per_request: int
    """A request of full length; layers with a window hold no more than the window."""
    kv_pool: int
    """What the runtime takes for keys and values: its share of what is left."""

    @property
    def used_bytes(self) -> int:
        """Everything but keys and values."""
        return self.weights + self.draft + self.activations + self.buffers + self.context

    @property
    def requests(self) -> int:
        """Requests of full length whose keys and values fit at once."""
        return self.kv_pool // self.kv_per_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A change of the recipe after which it fits better."""

    change: Mapping[str, Any]
    """Dotted key -> value."""
    verdict: Verdict
    why: str

    def __str__(self) -> str:
        """The lines to change, and what they cost."""
        lines = ", ".join(f"{key}: {value}" for key, value in self.change.items())
        return f"{lines} ({self.why})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How an engine fits its target."""

    ranks: tuple[RankMemory, ...]
    build_gpu_bytes: int
    """Memory that building the largest rank wants free on its GPU; with less, tactics are skipped."""
    build_host_bytes: int
    """Host memory that building the largest rank takes."""
    kv_tokens: int
    """Tokens whose keys and values fit, in whole blocks, on the fullest rank."""
    requests: int
    """Requests of `max_seq_len` tokens that are served at once."""
    largest_batch: int
    """Largest `max_batch_size` that is served whole at `max_seq_len`; 0: not even one request."""
    largest_seq_len: int
    """Largest `max_seq_len` at which `max_batch_size` is served whole; 0: none."""
    traffic_requests: int | None
    """Requests of the recipe's typical length that are served at once; None: the recipe has no `traffic`."""
    verdict: Verdict
    reason: str
    """Why it does not fit; empty where it does."""
    fix: Fix | None = None
    """The cheapest change that helps."""

    @property
    def fullest(self) -> RankMemory:
        """The rank with the least left."""
        return max(self.ranks, key=lambda rank: rank.used_bytes)

    @property
    def builds(self) -> bool:
        """Whether the GPU has what building wants."""
        return self.build_gpu_bytes <= self.fullest.room

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)
