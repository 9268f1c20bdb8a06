"""Requirements of engines on hosts: one check per criterion that says why a version does not match; pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from artifacts.version import Facts

INSTALLATION = ("tensorrt_llm", "tensorrt")
"""Packages of a TensorRT-LLM installation: the one that loads an engine, and the one beneath it."""

FORMS = frozenset({"pcie", "nvl", "40gb", "mig"})
"""Parts of a GPU's name that distinguish it from the GPU without them."""


def _equal(fact: str, facts: Facts, want: Any) -> str | None:
    have = facts.get(fact)
    return None if have == want else f"{fact} is {have!r}, not {want!r}"


def _at_least(fact: str, facts: Facts, want: int) -> str | None:
    have = facts.get(fact)
    if not isinstance(have, int):
        return f"{fact} is not recorded; the criterion is at least {want}"
    return None if have >= want else f"{fact} is {have}, less than {want}"


def _on_cpu(facts: Facts) -> bool:
    return str(facts.get("device", "cpu")).partition(":")[0] == "cpu"


def _cpu(_: str, facts: Facts, vector_sets: Iterable[str]) -> str | None:
    needs, have = facts.get("cpu"), list(vector_sets)
    if not _on_cpu(facts) or needs is None or needs in have:
        return None
    return f"needs a CPU with {needs}; this one has {', '.join(have) or 'no known vector set'}"


def _gpus(_: str, facts: Facts, names: Iterable[str]) -> str | None:
    if _on_cpu(facts):
        return None
    have = list(names)
    # The host may have other GPUs too: only those of a built-for name count towards the ranks.
    built = {gpu["name"] for gpu in facts.get("gpus", [])}
    ranks = facts.get("world_size", 1)
    alike = sum(name in built for name in have)
    if alike >= ranks:
        return None
    return f"needs {ranks} x {' or '.join(sorted(built))}; the host has {', '.join(have) or 'no GPU'}"


def _sm(_: str, facts: Facts, capabilities: Iterable[int]) -> str | None:
    """Compiled kernels run only on GPUs of the compute capability that they were built for."""
    needs, have = facts.get("sm"), sorted(set(capabilities))
    if _on_cpu(facts) or needs is None or needs in have:
        return None
    return f"needs GPUs of sm_{needs}; the host's are {', '.join(f'sm_{sm}' for sm in have) or 'none'}"


def _driver(_: str, facts: Facts, have: str | None) -> str | None:
    """A driver of an older branch than at build time may lack functions that the CUDA version needs."""
    built = {str(gpu["driver"]) for gpu in facts.get("gpus", []) if gpu.get("driver")}
    if _on_cpu(facts) or have is None or not built:
        return None
    # The oldest of the build's drivers: the build ran with it, so its branch is enough.
    needs = min(built, key=_branch)
    return None if _branch(have) >= _branch(needs) else f"needs driver {needs} or later; the host has {have}"


def _branch(driver: str) -> int:
    first = driver.partition(".")[0]
    # An unreadable version counts as the oldest branch, never as an error.
    return int(first) if first.isdigit() else 0


def loaders(facts: Facts) -> tuple[str, ...]:
    """The programs that load an engine, by what its build recorded: TensorRT-LLM's, or our environment's."""
    return INSTALLATION if INSTALLATION[0] in facts.get("toolchain", {}) else ("torch",)


def _toolchain(fact: str, facts: Facts, versions: Iterable[str]) -> str | None:
    """TensorRT and TensorRT-LLM's plugins load only plans of their exact version, patch included."""
    needs, have = facts.get("toolchain", {}).get(fact), list(versions)
    if fact not in loaders(facts) or needs is None or needs in have:
        return None
    return f"needs {fact} {needs}; the host has {', '.join(have) or 'none'}"


def _torch(_: str, facts: Facts, have: str | None) -> str | None:
    """Of engines that run in our own environment; others bring theirs."""
    if "torch" not in loaders(facts):
        return None
    needs = facts.get("toolchain", {}).get("torch")
    if needs is None or needs == have:
        return None
    return f"needs torch {needs}; the host has {have or 'none'}"


def _memory(_: str, facts: Facts, have: int) -> str | None:
    """Versions published before KV caches were counted have recorded only the bytes of weights."""
    counted = "memory_bytes_per_rank" in facts
    content = "weights and KV cache" if counted else "weights"
    weights = facts.get("weight_bytes_per_rank", 0)
    per_rank = facts.get("memory_bytes_per_rank", weights)
    # The largest rank decides: any rank may be placed on the GPU with `have` bytes.
    needs = max(per_rank, default=0) if isinstance(per_rank, list) else per_rank
    return None if needs <= have else f"a rank's {content} are {needs:,} bytes, more than {have:,}"


def _gpu(_: str, facts: Facts, want: str) -> str | None:
    """Criterion for another host: a GPU type as in recipes (`h200`), or a GPU's full name."""
    if _on_cpu(facts):
        return f"runs on the CPU, not on {want}"
    if facts.get("target") == want.lower():
        return None
    built = sorted({str(gpu["name"]) for gpu in facts.get("gpus", [])})
    if any(same_gpu(want, name) for name in built):
        return None
    target = facts.get("target", "host")
    needs = " or ".join(built) if target == "host" else target
    return f"needs {needs or 'the GPU it was built on'}; the criterion is {want}"


def same_gpu(want: str, name: str) -> bool:
    """Whether a GPU type or name denotes the GPU that the driver calls `name`."""
    wanted_parts, parts = _parts(want), _parts(name)
    # Other parts may be missing from the criterion; a form may not: `a100` does not denote the PCIe card.
    return bool(wanted_parts) and wanted_parts <= parts and wanted_parts & FORMS == parts & FORMS


def _parts(name: str) -> frozenset[str]:
    words = re.split(r"[\s_-]+", name.lower())
    # Recipes write `40g` where drivers write `40GB`.
    return frozenset(re.sub(r"^(\d+)g$", r"\1gb", part) for part in words) - {"nvidia", "tesla", ""}


def _gpu_count(_: str, facts: Facts, have: int) -> str | None:
    ranks = facts.get("world_size", 1)
    return None if _on_cpu(facts) or ranks <= have else f"needs {ranks} GPUs; the criterion is {have}"


def _runtime(_: str, facts: Facts, programs: Mapping[str, str]) -> str | None:
    """The program that will load the engine, and its version."""
    toolchain = facts.get("toolchain", {})
    needs = loaders(facts)
    loader = needs[0]
    for name, version in programs.items():
        if name not in needs:
            return f"is loaded by {loader} {toolchain.get(loader, 'of a version not recorded')}, not {name}"
        if toolchain.get(name) != version:
            return f"needs {name} {toolchain.get(name, 'of a version not recorded')}, not {version}"
    return None


Need = Callable[[str, Facts, Any], str | None]
"""Checks one criterion: (its name, a version's facts, the value wanted) -> why they do not match, or None."""

FACTS: dict[str, Need] = {
    "backend": _equal, "format": _equal, "dtype": _equal, "kv_cache": _equal, "target": _equal,
    "tp": _equal, "pp": _equal, "world_size": _equal,
    "max_batch_size": _at_least, "max_seq_len": _at_least,
    "gpu": _gpu, "gpu_count": _gpu_count, "runtime": _runtime,
    "cpu": _cpu, "gpus": _gpus, "sm": _sm, "driver": _driver, "torch": _torch,
    "tensorrt_llm": _toolchain, "tensorrt": _toolchain, "memory_bytes": _memory,
}  # fmt: skip
"""Criterion -> its check. Facts of the version must be equal, limits at least as large. Another host is
described by `gpu` (type), `gpu_count` and `runtime` (program -> version); this host by `cpu` (vector sets),
`gpus` (names), `sm` (compute capabilities times ten), `driver`, `torch` (version), `tensorrt_llm` and
`tensorrt` (versions of all toolchains) and `memory_bytes` (per rank)."""
