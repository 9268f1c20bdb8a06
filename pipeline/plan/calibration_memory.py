"""What calibration may use of this host, and the sizes that decide how it is used; pure."""

from calibration.statistics.budget import Budget, Shortage, Sizes, shortage
from pipeline.models.shape import ModelShape
from pipeline.plan.facts import Facts
from pipeline.process.host import Host
from recipes.calibration import Calibration

ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def layer_sizes(shape: ModelShape, seq_len: int) -> Sizes:
    """The sizes of one decoder layer, for sequences of that length."""
    return Sizes(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        q_size=shape.q_size,
        kv_size=shape.kv_size,
        vocab_size=shape.vocab_size,
        element_bytes=ELEMENT_BYTES[shape.dtype],
        experts=shape.experts.count if shape.experts else 0,
        shared_size=shape.experts.shared_intermediate_size if shape.experts else 0,
        # soft caps keep the fast attention kernels away: only then are all scores held (`Sizes.scores`)
        scores=shape.num_heads * seq_len if shape.attention_softcap is not None else 0,
    )


def hidden_bytes(calibration: Calibration, shape: ModelShape) -> int:
    """Disk that the hidden states between two layers take; 0 where only the data will tell."""
    if calibration.max_sequences == "all":
        return 0
    tokens = calibration.max_sequences * calibration.seq_len
    # twice: what goes into a layer and what comes out of it are on disk together
    return 2 * tokens * shape.hidden_size * ELEMENT_BYTES[shape.dtype]


def memory_budget(calibration: Calibration, host: Host) -> Budget:
    """The recipe's caps, or where it has none, nine tenths of what the host has."""
    # a GPU that our PyTorch build cannot use counts as none: then the CPU measures
    gpu, memory = (host.gpus[0] if host.gpus and host.cuda else None), calibration.memory
    return Budget(
        device="cuda" if gpu else "cpu",
        gpu_bytes=int(memory.gpu_gb * 1e9) if memory.gpu_gb else int(0.9 * gpu.memory_bytes) if gpu else 0,
        host_bytes=int(memory.host_gb * 1e9) if memory.host_gb else int(0.9 * host.memory_bytes),
    )


def memory_shortage(calibration: Calibration, facts: Facts) -> Shortage | None:
    """The cap, the recipe's or the host's, that is too low to calibrate even one sequence."""
    return shortage(
        layer_sizes(facts.source.shape, calibration.seq_len),
        calibration.seq_len,
        memory_budget(calibration, facts.host),
        search=calibration.statistics == "all",
    )
