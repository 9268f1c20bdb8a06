"""What an engine needs of a host, and why a host or a request does not suit it; pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Facts = Mapping[str, Any]
"""What is registered of a version: what a host needs to load it, and what it was built for."""

INSTALLATION = ("tensorrt_llm", "tensorrt")
"""Packages of a TensorRT-LLM installation: the one that loads an engine, and the one beneath it."""

FORMS = frozenset({"pcie", "nvl", "40gb", "mig"})
"""Parts of a GPU's name that make it another one than the GPU whose name lacks them."""


def _equal(fact: str, facts: Facts, want: Any) -> str | None:
    have = facts.get(fact)
    return None if have == want else f"{fact} is {have!r}, not {want!r}"


def _at_least(fact: str, facts: Facts, want: int) -> str | None:
    have = facts.get(fact)
    if have is None:
        return f"{fact} is not recorded, and {want} is wanted"
    return None if have >= want else f"{fact} is {have}, less than {want}"


def _on_cpu(facts: Facts) -> bool:
    return str(facts.get("device", "cpu")).partition(":")[0] == "cpu"


def _cpu(_: str, facts: Facts, known: Iterable[str]) -> str | None:
    needs, have = facts.get("cpu"), list(known)
    if not _on_cpu(facts) or needs is None or needs in have:
        return None
    return f"needs a CPU with {needs}; this one has {', '.join(have) or 'none that is known'}"


def _gpus(_: str, facts: Facts, names: Iterable[str]) -> str | None:
    if _on_cpu(facts):
        return None
    have = list(names)
    built = {gpu["name"] for gpu in facts.get("gpus", [])}
    ranks = facts.get("world_size", 1)
    alike = sum(name in built for name in have)
    if alike >= ranks:
        return None
    return f"needs {ranks} x {' or '.join(sorted(built))}; the host has {', '.join(have) or 'no GPU'}"


def _sm(_: str, facts: Facts, capabilities: Iterable[int]) -> str | None:
    """Compiled kernels run on GPUs of the compute capability they were built for, and on no other."""
    needs, have = facts.get("sm"), sorted(set(capabilities))
    if _on_cpu(facts) or needs is None or needs in have:
        return None
    return f"needs GPUs of sm_{needs}; the host's are {', '.join(f'sm_{sm}' for sm in have) or 'none'}"


def _driver(_: str, facts: Facts, have: str | None) -> str | None:
    """A driver of an older branch than the one it was built with may lack what its CUDA asks for."""
    built = {str(gpu["driver"]) for gpu in facts.get("gpus", []) if gpu.get("driver")}
    if _on_cpu(facts) or have is None or not built:
        return None
    needs = min(built, key=_branch)
    return None if _branch(have) >= _branch(needs) else f"needs driver {needs} or later; the host has {have}"


def _branch(driver: str) -> int:
    first = driver.partition(".")[0]
    return int(first) if first.isdigit() else 0


def loaders(facts: Facts) -> tuple[str, ...]:
    """The programs that load an engine, by what its build recorded: TensorRT-LLM's, or our environment's."""
    return INSTALLATION if INSTALLATION[0] in facts.get("toolchain", {}) else ("torch",)


def _toolchain(fact: str, facts: Facts, versions: Iterable[str]) -> str | None:
    """TensorRT loads plans of its very own version only, patch included; TensorRT-LLM's plugins likewise."""
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
    """Versions published before the cache was counted have their weights alone."""
    counted = "memory_bytes_per_rank" in facts
    what = "weights and KV cache" if counted else "weights"
    per_rank = facts.get("memory_bytes_per_rank" if counted else "weight_bytes_per_rank", 0)
    needs = max(per_rank, default=0) if isinstance(per_rank, list) else per_rank
    return None if needs <= have else f"a rank's {what} are {needs:,} bytes, more than {have:,}"


def _gpu(_: str, facts: Facts, want: str) -> str | None:
    """Of another host: a GPU type as recipes say it (`h200`), or a GPU's full name."""
    if _on_cpu(facts):
        return f"runs on the CPU, not on {want}"
    if facts.get("target") == want.lower():
        return None
    built = sorted({str(gpu["name"]) for gpu in facts.get("gpus", [])})
    if any(same_gpu(want, name) for name in built):
        return None
    target = facts.get("target", "host")
    needs = " or ".join(built) if target == "host" else target
    return f"needs {needs or 'the GPU it was built on'}; {want} is asked for"


def same_gpu(want: str, name: str) -> bool:
    """Whether a GPU type, or a GPU's name, means the GPU that the driver calls `name`."""
    asked, found = _parts(want), _parts(name)
    return bool(asked) and asked <= found and asked & FORMS == found & FORMS


def _parts(name: str) -> frozenset[str]:
    found = re.split(r"[\s_-]+", name.lower())
    return frozenset(re.sub(r"^(\d+)g$", r"\1gb", part) for part in found) - {"nvidia", "tesla", ""}


def _gpu_count(_: str, facts: Facts, have: int) -> str | None:
    ranks = facts.get("world_size", 1)
    return None if _on_cpu(facts) or ranks <= have else f"needs {ranks} GPUs; {have} are asked for"


def _runtime(_: str, facts: Facts, wanted: Mapping[str, str]) -> str | None:
    """The program that is to load it; an engine of another backend is loaded by another one."""
    toolchain = facts.get("toolchain", {})
    needs = loaders(facts)
    loader = needs[0]
    for name, version in wanted.items():
        if name not in needs:
            return f"is loaded by {loader} {toolchain.get(loader, 'of a version not recorded')}, not {name}"
        if toolchain.get(name) != version:
            return f"needs {name} {toolchain.get(name, 'of a version not recorded')}, not {version}"
    return None


Need = Callable[[str, Facts, Any], str | None]
"""Why the facts do not suit what is wanted of one; None when they do."""

FACTS: dict[str, Need] = {
    "backend": _equal, "format": _equal, "dtype": _equal, "kv_cache": _equal, "target": _equal,
    "tp": _equal, "pp": _equal, "world_size": _equal,
    "max_batch_size": _at_least, "max_seq_len": _at_least,
    "gpu": _gpu, "gpu_count": _gpu_count, "runtime": _runtime,
    "cpu": _cpu, "gpus": _gpus, "sm": _sm, "driver": _driver, "torch": _torch,
    "tensorrt_llm": _toolchain, "tensorrt": _toolchain, "memory_bytes": _memory,
}  # fmt: skip
"""What can be asked for: facts of the version as they are, limits at least; of some other host `gpu` (type),
`gpu_count`, and `runtime` (program -> version); what this host has (`cpu`: its vector sets, `gpus`: names,
`sm`: compute capabilities times ten, `driver`, `torch`: version, `tensorrt_llm` and `tensorrt`: versions of
all toolchains, `memory_bytes`: per rank)."""
