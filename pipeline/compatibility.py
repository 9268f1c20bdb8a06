"""What an engine asks of a host, and whether this one has it; pure."""

from typing import Any

from pipeline.host import Host

CPU_ISAS = ("avx2", "avx512f", "avx512_bf16", "amx_tile")
"""Vector sets, each host that has one also has those before it."""


def facts_here(host: Host) -> dict[str, Any]:
    """This host in the words that published versions use for what they need."""
    known = CPU_ISAS[: CPU_ISAS.index(host.cpu) + 1] if host.cpu in CPU_ISAS else (host.cpu,)
    return {"cpu": known, "torch": host.tools.get("torch"), "gpus": [gpu.name for gpu in host.gpus]}
