"""Chooses the batch size so that memory stays below the caps; pure, without torch.

In memory at once: the weights of two layers, since the next one is read while one runs (or the embedding
table and the first layer); the activations of one batch inside a layer; with AWQ's search, the second moments
of the layer's inputs. The hidden states of the whole set are in files.
"""

from dataclasses import dataclass
from typing import Literal

from calibration.errors import DataError

FULL_SPEED_TOKENS = {"cuda": 16384, "cpu": 4096}
"""Tokens per batch above which a larger batch is no faster (one H200, Llama-3.1-8B shapes; two CPU cores)."""
BASE_BYTES = {"cpu": 500_000_000, "cuda": 2_200_000_000}
"""Resident memory of the interpreter with torch and transformers; on a GPU's host with CUDA's libraries."""
CONTEXT_BYTES = 700_000_000
"""GPU memory outside the allocator: CUDA's context and loaded kernels."""
WORKSPACE_BYTES = 400_000_000
"""GPU memory of cuBLAS's workspaces, partial sums of reductions, and what the allocator rounds up."""
READING_BYTES = 8 * (8 << 20)
"""Pinned buffers that weights pass through on their way to a GPU."""
STAGED_BATCHES = 4
"""Pinned batches of hidden states on their way from a GPU to the file."""
MARGIN = 1.15
"""Of what is computed here, for alignment, fragmentation and small tensors."""
PIECE_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 25}
"""Weight elements that AWQ's search judges at once: the CPU's cache, and enough rows to keep a GPU busy."""
PIECE_BYTES_PER_ELEMENT = 16
"""Of the search's temporaries: scaled weights, codes, their errors, and the errors times G."""
FLOAT32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes that determine the memory of one decoder layer."""

    hidden_size: int
    intermediate_size: int
    q_size: int
    kv_size: int
    vocab_size: int
    element_bytes: int
    """Bytes of one element in the source dtype."""
    experts: int = 0
    """Experts of a layer, of `intermediate_size` channels each; 0: an MLP of that size."""
    shared_size: int = 0
    """Channels of the shared expert, which gets every token."""
    scores: int = 0
    """Attention scores per token that are held at once: heads times sequence length where soft caps keep the
    fast kernels away, else none."""

    @property
    def embedding_bytes(self) -> int:
        """The embedding table."""
        return self.vocab_size * self.hidden_size * self.element_bytes

    @property
    def layer_bytes(self) -> int:
        """The weights of a decoder layer's linears; norms and biases are within the margin."""
        attention = self.hidden_size * 2 * (self.q_size + self.kv_size)
        inner = self.intermediate_size * max(self.experts, 1) + self.shared_size
        return (attention + 3 * self.hidden_size * inner) * self.element_bytes

    @property
    def widest(self) -> int:
        """Input channels of the widest linear."""
        return max(self.hidden_size, self.intermediate_size, self.shared_size, self.q_size)

    @property
    def token_bytes(self) -> int:
        """Activations per token at the worst moment of a layer, its input and the next batch included."""
        outside = 3 * self.hidden_size * self.element_bytes
        norm = 3 * self.hidden_size * FLOAT32
        attention = (5 * self.q_size + 5 * self.kv_size + self.hidden_size) * self.element_bytes
        attention += self.scores * (2 * FLOAT32 + self.element_bytes)
        inner = max(self.intermediate_size, self.shared_size)  # all tokens may choose one expert
        mlp = (self.hidden_size * (3 if self.experts else 1) + 4 * inner) * self.element_bytes
        return outside + max(norm, attention, mlp)

    @property
    def moments_bytes(self) -> int:
        """Second moments of a layer's four distinct inputs, float32; of experts none are recorded."""
        mlp = 0 if self.experts else self.hidden_size**2 + self.intermediate_size**2
        return (self.hidden_size**2 + self.q_size**2 + mlp) * FLOAT32


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Caps in bytes."""

    device: Literal["cpu", "cuda"]
    gpu_bytes: int
    """Cap of GPU memory; 0 where the device is the CPU."""
    host_bytes: int
    """Cap of resident host memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """A cap that is too low for even one sequence."""

    kind: Literal["host", "gpu"]
    seq_len: int
    needed_bytes: int
    cap_bytes: int
    search: bool

    def __str__(self) -> str:
        needed = self.needed_bytes / 1e9 + 0.005  # never rounded to less
        without = ", or record 'ranges' only" if self.search else ""
        return (
            f"{self.kind}_gb is {self.cap_bytes / 1e9:.2f}, but one sequence of {self.seq_len} tokens needs "
            f"at least {needed:.2f} GB; raise it, lower seq_len{without}"
        )


def shortage(sizes: Sizes, seq_len: int, budget: Budget, *, search: bool) -> Shortage | None:
    """The cap that is too low even for one sequence, if any."""
    host = host_bytes(sizes, seq_len, budget, search=search)
    gpu = gpu_bytes(sizes, seq_len, budget, search=search)
    if host > budget.host_bytes:
        return Shortage(
            kind="host", seq_len=seq_len, needed_bytes=host, cap_bytes=budget.host_bytes, search=search
        )
    if gpu > budget.gpu_bytes:
        return Shortage(
            kind="gpu", seq_len=seq_len, needed_bytes=gpu, cap_bytes=budget.gpu_bytes, search=search
        )
    return None


def batch_size(sizes: Sizes, seq_len: int, budget: Budget, *, search: bool) -> int:
    """Sequences per batch: as many as full speed needs, or fewer to stay below the caps.

    DataError, with the memory that one sequence needs, where not even one fits.
    """
    # The largest batch first: a larger one than this would not be faster.
    for batch in range(max(1, FULL_SPEED_TOKENS[budget.device] // seq_len), 0, -1):
        host = host_bytes(sizes, batch * seq_len, budget, search=search)
        gpu = gpu_bytes(sizes, batch * seq_len, budget, search=search)
        if host <= budget.host_bytes and gpu <= budget.gpu_bytes:
            return batch
    raise DataError(str(shortage(sizes, seq_len, budget, search=search)))


def host_bytes(sizes: Sizes, tokens: int, budget: Budget, *, search: bool) -> int:
    """Peak resident host memory for batches of that many tokens."""
    base = BASE_BYTES[budget.device]
    if budget.device == "cpu":
        return base + int(MARGIN * _working_bytes(sizes, tokens, search=search))
    staged = _power_of_two(tokens * sizes.hidden_size * sizes.element_bytes)  # as PyTorch pins memory
    return base + READING_BYTES + (STAGED_BATCHES + 2) * staged


def gpu_bytes(sizes: Sizes, tokens: int, budget: Budget, *, search: bool) -> int:
    """Peak GPU memory for batches of that many tokens; 0 on the CPU."""
    if budget.device == "cpu":
        return 0
    return CONTEXT_BYTES + WORKSPACE_BYTES + int(MARGIN * _working_bytes(sizes, tokens, search=search))


def _working_bytes(sizes: Sizes, tokens: int, *, search: bool) -> int:
    """Weights, activations and moments on the device that computes."""
    activations = tokens * sizes.token_bytes
    embedding = (
        sizes.embedding_bytes + sizes.layer_bytes + 3 * tokens * sizes.hidden_size * sizes.element_bytes
    )
    layers = 2 * sizes.layer_bytes + activations
    if search:
        layers += sizes.moments_bytes + _search_bytes(sizes)
    # Not the sum: the embedding table is freed before the second layer is loaded.
    return max(embedding, layers)


def _search_bytes(sizes: Sizes) -> int:
    """Temporaries of the search, while activations are gone but their memory is not given back."""
    largest = max(sizes.hidden_size * sizes.intermediate_size, sizes.hidden_size * sizes.q_size)
    return search_bytes(-(-largest // sizes.widest), sizes.widest)


def search_bytes(num_out: int, num_in: int) -> int:
    """Bytes that the search on a GPU takes for one weight [O, I], on top of the weights and the moments."""
    piece = min(num_out * num_in, max(num_in, PIECE_ELEMENTS["cuda"]))
    return num_in * num_in * 2 + piece * PIECE_BYTES_PER_ELEMENT


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()
