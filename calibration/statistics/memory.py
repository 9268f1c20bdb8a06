"""Enforces the memory caps of a pass: by the allocator on the GPU, by measurement on the host."""

from pathlib import Path
from typing import Any, TypedDict

import torch

from calibration.errors import MemoryExceeded
from calibration.model.linears import attention
from calibration.statistics.budget import CONTEXT_BYTES, Budget, Sizes, gpu_bytes, host_bytes


def sizes_of(config: Any, dtype: torch.dtype, seq_len: int) -> Sizes:
    """The sizes of one decoder layer, from a transformers configuration."""
    # Some models have heads that are wider or narrower than this quotient.
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Sizes(
        hidden_size=config.hidden_size,
        intermediate_size=getattr(config, "moe_intermediate_size", config.intermediate_size),
        q_size=config.num_attention_heads * head_dim,
        kv_size=config.num_key_value_heads * head_dim,
        vocab_size=config.vocab_size,
        element_bytes=dtype.itemsize,
        experts=getattr(config, "num_experts", 0),
        shared_size=getattr(config, "shared_expert_intermediate_size", 0),
        scores=config.num_attention_heads * seq_len if attention(config.to_dict()) == "eager" else 0,
    )


class Peak(TypedDict):
    """Bytes of one kind of memory."""

    declared: int
    predicted: int
    measured: int


class Caps:
    """Declared, predicted and measured peaks."""

    def __init__(self, budget: Budget, sizes: Sizes, batch_tokens: int, *, search: bool) -> None:
        self.budget = budget
        self.host_predicted = host_bytes(sizes, batch_tokens, self.budget, search=search)
        self.gpu_predicted = gpu_bytes(sizes, batch_tokens, self.budget, search=search)

    def impose(self, device: torch.device) -> None:
        """Makes the GPU's allocator refuse what is above the cap."""
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            # The allocator's limit is a share of the device, and does not count CUDA's own context.
            fraction = min(1.0, (self.budget.gpu_bytes - CONTEXT_BYTES) / total)
            torch.cuda.set_per_process_memory_fraction(fraction, device)
            torch.cuda.reset_peak_memory_stats(device)

    def hold(self, size: int) -> bool:
        """Reserve GPU memory for the whole pass if it fits below the cap; return whether it does."""
        fits = self.gpu_predicted > 0 and self.gpu_predicted + size <= self.budget.gpu_bytes
        self.gpu_predicted += size if fits else 0
        return fits

    def exceeded(self, exc: torch.OutOfMemoryError) -> MemoryExceeded:
        """The error for a refusal of the GPU's allocator."""
        return MemoryExceeded(
            f"GPU memory: the pass needs more than the cap of {self.budget.gpu_bytes / 1e9:.2f} GB "
            f"(predicted {self.gpu_predicted / 1e9:.2f} GB): {str(exc).partition('. ')[0]}; "
            "raise calibration.memory.gpu_gb"
        )

    def check(self) -> None:
        """Raises MemoryExceeded once the host's peak is above the cap."""
        if peak_host_bytes() > self.budget.host_bytes:
            raise MemoryExceeded(
                f"host memory: the pass took {peak_host_bytes() / 1e9:.2f} GB, more than the cap of "
                f"{self.budget.host_bytes / 1e9:.2f} GB (predicted {self.host_predicted / 1e9:.2f} GB); "
                "raise calibration.memory.host_gb"
            )

    def report(self, device: torch.device) -> dict[str, Peak]:
        """Bytes by kind of memory: declared, predicted, measured."""
        peaks: dict[str, Peak] = {
            "host": {
                "declared": self.budget.host_bytes,
                "predicted": self.host_predicted,
                "measured": peak_host_bytes(),
            }
        }
        if device.type == "cuda":
            peaks["gpu"] = {
                "declared": self.budget.gpu_bytes,
                "predicted": self.gpu_predicted,
                # Reserved, not allocated: the cap applies to what the allocator takes from the device.
                "measured": torch.cuda.max_memory_reserved(device) + CONTEXT_BYTES,
            }
        return peaks


def peak_host_bytes() -> int:
    """High-water mark of this process's resident memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    # The kernel counts in KiB.
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
