"""What an engine asks of a host, and whether this one has it; pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.process.host import Host
from pipeline.toolchains.toolchain import BOUND, Toolchain

CPU_ISAS = ("avx2", "avx512f", "avx512_bf16", "amx_tile")
"""Vector sets, each host that has one also has those before it."""


TOOLCHAIN = frozenset(BOUND)
"""Programs of a TensorRT-LLM installation."""


def facts_here(host: Host, toolchains: Iterable[Toolchain] = ()) -> dict[str, Any]:
    """This host and its working TensorRT-LLM installations, in the words of what published versions need."""
    isas = CPU_ISAS[: CPU_ISAS.index(host.cpu) + 1] if host.cpu in CPU_ISAS else (host.cpu,)
    working = [toolchain for toolchain in toolchains if not toolchain.problem]
    return {
        "cpu": isas,
        "torch": host.tools.get("torch"),
        "gpus": [gpu.name for gpu in host.gpus],
        "sm": [gpu.sm for gpu in host.gpus],
        "driver": host.gpus[0].driver if host.gpus else None,
        **{name: _versions(working, name) for name in sorted(TOOLCHAIN)},
    }


def elsewhere(facts: dict[str, Any], query: Mapping[str, Any]) -> dict[str, Any]:
    """What of this host counts where some host is asked for: nothing beside a `gpu`, else what is not asked.

    A `runtime` takes the place of this host's versions. A host without GPUs is no place for what TensorRT-LLM
    loads: a query for those or for a `driver` is about another host, whose GPUs are unknown.
    """
    if "gpu" in query:
        return {}
    programs = query.get("runtime", {}).keys()
    dropped = {"driver"} & query.keys() | ({"torch", *TOOLCHAIN} if programs else set())
    if not facts["gpus"] and ("driver" in query or programs & TOOLCHAIN):
        dropped |= {"gpus", "sm", "driver", "cpu", "torch", *TOOLCHAIN}
    return {fact: have for fact, have in facts.items() if fact not in dropped}


def _versions(toolchains: Iterable[Toolchain], name: str) -> list[str]:
    return sorted({toolchain.versions[name] for toolchain in toolchains if name in toolchain.versions})
