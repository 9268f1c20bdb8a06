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
    known = CPU_ISAS[: CPU_ISAS.index(host.cpu) + 1] if host.cpu in CPU_ISAS else (host.cpu,)
    found = [one for one in toolchains if not one.problem]
    return {
        "cpu": known,
        "torch": host.tools.get("torch"),
        "gpus": [gpu.name for gpu in host.gpus],
        "sm": [gpu.sm for gpu in host.gpus],
        "driver": host.gpus[0].driver if host.gpus else None,
        **{name: _versions(found, name) for name in sorted(TOOLCHAIN)},
    }


def elsewhere(here: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What of this host counts where some host is asked for: nothing beside a `gpu`, else what is not asked.

    A `runtime` takes the place of this host's versions. A host without GPUs is no place for what TensorRT-LLM
    loads: asked about that or about a `driver`, somebody means another one, of which no GPU is known.
    """
    if "gpu" in wanted:
        return {}
    programs = wanted.get("runtime", {}).keys()
    dropped = {"driver"} & wanted.keys() | ({"torch", *TOOLCHAIN} if programs else set())
    if not here["gpus"] and ("driver" in wanted or programs & TOOLCHAIN):
        dropped |= {"gpus", "sm", "driver", "cpu", "torch", *TOOLCHAIN}
    return {fact: have for fact, have in here.items() if fact not in dropped}


def _versions(toolchains: Iterable[Toolchain], name: str) -> list[str]:
    return sorted({one.versions[name] for one in toolchains if name in one.versions})
