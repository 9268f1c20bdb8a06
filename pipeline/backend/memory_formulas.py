"""How many bytes each part of an engine takes; pure.

Nothing here was measured by us: the constants are fitted to logs that users of TensorRT-LLM published, which
the tests repeat with the tolerance that each deserves. H hidden size, I inner channels of the MLP, V rows of
the vocabulary tables, all per rank where tensor parallelism splits them.

    part                  formula                                    fitted to
    tensors, unquantized  tokens (I + 3 H)                           TensorRT-LLM issue 3636: exact
    tensors, weight only  tokens (2 I + 2 H)                         issue 1188, and a 1.5B int4 log: exact
    tensors, FP8          tokens (2 I + 12 H)                        two logs of Llama-2-7B: +1 % and +3 %
    head                  rows V, at least cuBLAS's 32 MiB           the same logs
    runtime buffers       24 batch length + 4 rows V                 issue 1188, memory.md, a GPT-J log: 1 %
    decoder               23 batch V                                 the same: -0.3 %, +2 %, +16 %
    CUDA context          791 MiB                                    memory.md: what its lines do not name
    driver                561 MiB                                    H100: nvidia-smi's total less CUDA's

Assumed, without a log: INT8 activations are like weight only, the tensors of backend trtllm_torch, CUDA
graphs, buffers of NCCL, mixtures of experts.
"""

import math
from collections.abc import Callable, Sequence

from pipeline.checkpoint.slicing import padded_vocab
from pipeline.models.shape import ModelShape
from recipes.formats import E4M3, Format
from recipes.precision import Precision

MIB = 1 << 20

DRIVER_BYTES = 561 * MIB
CUDA_CONTEXT_BYTES = 791 * MIB
CUBLAS_WORKSPACE_BYTES = 32 * MIB
NCCL_BYTES = 512 * MIB
"""Buffers of NCCL and of the custom all-reduce, where ranks talk; assumed."""
CUDA_GRAPH_BYTES = 512 * MIB
"""CUDA graphs and kernels of PyTorch; assumed."""
PROCESS_BYTES = 450 * MIB
"""A process with torch that runs compiled code on the CPU: 300 MB of libraries, and its allocator's slack."""

BUILDER_GPU_BYTES = 574 * MIB
"""CUDA and the builder's kernels: issue 538's log."""
BUILDER_HOST_BYTES = 2048 * MIB
"""The builder's kernels and Python; 1,799 MiB are the kernels': issue 538's log."""

RUNTIME_BYTES_PER_POSITION = 24
DECODER_BYTES_PER_LOGIT = 23

MEDUSA_HEADS = 4
"""Default of TensorRT-LLM's quantize.py; each is a linear of H x H and a head of H x V."""


def element_bytes(shape: ModelShape) -> int:
    """Bytes of an unquantized element."""
    return 4 if shape.dtype == "float32" else 2


def kv_element_bytes(shape: ModelShape, kv_cache: str) -> int:
    """Bytes of an element of a key or value."""
    return element_bytes(shape) if kv_cache == "auto" else 1


def kv_layer_bytes(shape: ModelShape, kv_cache: str, tp: int) -> int:
    """Keys and values of one token in one layer of a rank; heads are repeated where ranks are more."""
    heads = max(1, shape.num_kv_heads // tp)
    return 2 * heads * shape.head_dim * kv_element_bytes(shape, kv_cache)


def kv_token_bytes(shape: ModelShape, kv_cache: str, tp: int, pp: int) -> int:
    """Keys and values of one token in the layers of a rank."""
    return shape.num_layers // pp * kv_layer_bytes(shape, kv_cache, tp)


def kv_request_bytes(cached: Sequence[int | None], layer_bytes: int, seq_len: int, block: int) -> int:
    """Keys and values of a request of `seq_len` tokens in layers that hold so many at most; None: all.

    They hold whole blocks, of `layer_bytes` per token.
    """
    seen = [seq_len if most is None else min(seq_len, most) for most in cached]
    return sum(math.ceil(each / block) * block for each in seen) * layer_bytes


def activation_bytes(shape: ModelShape, precision: Precision, tp: int, ep: int, num_tokens: int) -> int:
    """Tensors inside one decoder layer for one pass; every layer, and so every stage, uses them again."""
    # All layers use the same memory in turn, so the format that takes most decides.
    elements = max(_engine_elements(shape, fmt, tp, ep) for fmt in precision.formats)
    return num_tokens * elements * element_bytes(shape)


def torch_activation_bytes(shape: ModelShape, tp: int, ep: int, num_tokens: int) -> int:
    """The same for PyTorch, which frees a tensor only after its last use; assumed: 3 I + 6 H."""
    return num_tokens * (3 * _inner(shape, tp, ep) + 6 * _outer(shape, tp)) * element_bytes(shape)


def _engine_elements(shape: ModelShape, fmt: Format, tp: int, ep: int) -> int:
    # The factors are those of the table above.
    inner, outer = _inner(shape, tp, ep), _outer(shape, tp)
    if fmt.weight == "source":
        return inner + 3 * outer
    return 2 * inner + (12 if fmt.activation == E4M3 else 2) * outer


def _inner(shape: ModelShape, tp: int, ep: int) -> int:
    """Inner channels that a token passes through on a rank.

    All experts of a token may be on one of the `ep` ranks that hold different ones: buffers allow for that.
    """
    experts = shape.experts
    if experts is None:
        return shape.intermediate_size // tp
    routed = experts.per_token * experts.intermediate_size // (tp // ep)
    return routed + experts.shared_intermediate_size // tp


def _outer(shape: ModelShape, tp: int) -> int:
    """Channels between the blocks, or those of the attention where they are more; once per expert."""
    copies = shape.experts.per_token if shape.experts else 1
    return max(copies * shape.hidden_size, shape.q_size // tp)


def head_bytes(shape: ModelShape, tp: int, rows: int) -> int:
    """Logits before they are converted: the rank's, and where ranks share the vocabulary, all."""
    vocab = padded_vocab(shape, tp)
    logits = rows * (vocab // tp + (vocab if tp > 1 else 0)) * element_bytes(shape)
    return max(logits, CUBLAS_WORKSPACE_BYTES)


def runtime_bytes(rows: int, vocab: int, sequences: int, seq_len: int) -> int:
    """Buffers of the runtime: float32 logits, and per position of each sequence what is to be kept."""
    return 4 * rows * vocab + RUNTIME_BYTES_PER_POSITION * sequences * seq_len


def decoder_bytes(sequences: int, vocab: int) -> int:
    """Work space of sampling."""
    return DECODER_BYTES_PER_LOGIT * sequences * vocab


def head_weight_bytes(
    shape: ModelShape, mode: str, tp: int, layer_bytes: Callable[[], int], copies: int
) -> int:
    """Weights that propose tokens beside the model: Medusa's heads, or copies of EAGLE's net; unquantized.

    The net is one layer, what joins its two inputs, and tables of its own.
    """
    hidden, vocab = shape.hidden_size, padded_vocab(shape, tp)
    if mode == "medusa":
        return MEDUSA_HEADS * (hidden * hidden + hidden * vocab // tp) * element_bytes(shape)
    if mode == "eagle":
        # Two inputs are joined into one; the tables are an embedding and a head.
        joined = 2 * hidden * hidden + 2 * hidden * vocab
        return copies * (layer_bytes() + joined // tp * element_bytes(shape))
    return 0


def build_gpu_bytes(weights: int, activations: int) -> int:
    """What the builder wants free on its GPU: the weights, and room to time any tactic.

    Building Gemma-2-9B took 19,386 MiB, its weights (TensorRT-LLM issue 2324); a tactic whose tensors do not
    fit beside them is skipped without an error.
    """
    return weights + activations + BUILDER_GPU_BYTES


def build_host_bytes(weights: int) -> int:
    """Host memory of a build: the weights and the engine that is serialized (issue 2324: 1 % below this)."""
    return 2 * weights + BUILDER_HOST_BYTES
