"""GPU types that a recipe can target, by the names that recipes use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuType:
    """What is known of a GPU type before one is at hand."""

    sm: int
    """Compute capability times ten, from NVIDIA's CUDA GPU list."""
    memory_bytes: int
    """As `nvidia-smi` gives it: a little less, or a little more, than the name says."""
    nvlink_gb_per_s: int
    """NVLink bandwidth of one GPU, both directions, 10^9 bytes per second; 0: GPUs of one host share PCIe."""
    bandwidth_gb_per_s: int
    """Memory bandwidth, 10^9 bytes per second."""

    @property
    def nvlink(self) -> bool:
        """Whether all GPUs of this type in one host are joined by NVLink."""
        return self.nvlink_gb_per_s > 0


MIB = 1 << 20

TARGETS = {
    # sm, nvidia-smi's memory, NVLink, memory bandwidth: NVIDIA's data sheet of the form that is named;
    # nvidia-smi's totals are those of public logs, and of thundergolfer.com/blog/nvidia-gpu-memory-capacity.
    "a100": GpuType(80, 81920 * MIB, 600, 2039),  # A100 80GB SXM data sheet, 2021
    "a100-40g": GpuType(80, 40960 * MIB, 600, 1555),  # A100 40GB SXM data sheet, 2020
    "a100-80g": GpuType(80, 81920 * MIB, 600, 2039),  # another name of `a100`
    "a30": GpuType(80, 24576 * MIB, 0, 933),  # A30 data sheet; NVLink bridges join pairs only
    "a10": GpuType(86, 23028 * MIB, 0, 600),  # A10 data sheet
    "l4": GpuType(89, 23034 * MIB, 0, 300),  # L4 data sheet
    "l40s": GpuType(89, 46068 * MIB, 0, 864),  # L40S data sheet
    "h100": GpuType(90, 81559 * MIB, 900, 3350),  # H100 SXM data sheet
    "h100-pcie": GpuType(90, 81559 * MIB, 0, 2000),  # H100 PCIe data sheet; bridges join pairs only
    "h100-nvl": GpuType(90, 95830 * MIB, 0, 3900),  # H100 NVL data sheet; bridges join pairs only
    "h20": GpuType(90, 97871 * MIB, 900, 4000),  # H20 specification as resellers print it
    "h200": GpuType(90, 143771 * MIB, 900, 4800),  # H200 SXM data sheet
    "gh200": GpuType(90, 97871 * MIB, 0, 4000),  # GH200 data sheet, 96 GB HBM3; a host has one
    "b200": GpuType(100, 183359 * MIB, 1800, 8000),  # HGX B200 data sheet, per GPU
}
"""SXM forms where there are several and the name does not say; `a100` and `h100` are those with 80 GB."""
