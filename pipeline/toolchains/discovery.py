"""Which TensorRT-LLM installations this host has: on PATH, and those that a person declared."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import BackendUnavailable
from pipeline.toolchains import declared
from pipeline.toolchains.declared import ON_PATH, Declared
from pipeline.toolchains.probe import Memory, probed
from pipeline.toolchains.toolchain import BOUND, Choice, Toolchain

PROGRAMS = ("trtllm-build", "trtllm-serve", "trtllm-bench")
"""Any of them makes a toolchain; versions without engines have no trtllm-build."""

OUTSIDE = ("mpirun",)
"""Programs that a toolchain uses and that are often the system's."""

MEMORY = "toolchains.json"
"""File of the store that remembers probes."""


def discover(store_root: Path | None, env: Mapping[str, str]) -> tuple[Toolchain, ...]:
    """Every toolchain, probed, with versions or a problem; RecipeError for mistakes in the declaring file.

    Without a store nothing is remembered, and each one is asked again. A declared environment that is also
    on PATH has its declared name only.
    """
    memory = Memory(store_root / MEMORY if store_root else None)
    declared = list(_list_declared(env))
    declared_bins = {
        (Path(toolchain.location) / "bin").resolve()
        for toolchain in declared
        if toolchain.kind == "environment"
    }
    candidates = [
        # One installation, one name: its declared name is the one that recipes state.
        *(toolchain for toolchain in _find_on_path(env) if Path(toolchain.location) not in declared_bins),
        *declared,
    ]
    # probes wait for other programs, up to two minutes each: all at once; 0 workers is an error
    with ThreadPoolExecutor(max(1, len(candidates))) as pool:
        return tuple(
            pool.map(
                lambda candidate: candidate if candidate.problem else probed(candidate, memory), candidates
            )
        )


def choose(toolchains: Sequence[Toolchain], name: str | None) -> Choice:
    """The toolchain of that name, or without a name the only one that works; else why there is none."""
    if name is not None:
        return _choose_named(toolchains, name)
    # several are never chosen among: the choice is in the engine's key
    working = [toolchain for toolchain in toolchains if not toolchain.problem]
    if len(working) == 1:
        return Choice(toolchain=working[0])
    if working:
        listing = ", ".join(f"{toolchain.name} ({toolchain.version})" for toolchain in working)
        return Choice(problem=f"several toolchains: {listing}; name one of them with engine.toolchain")
    broken = "".join(f"; {toolchain.name}: {toolchain.problem}" for toolchain in toolchains)
    return Choice(
        problem="no TensorRT-LLM: none is on PATH and none is declared that works; "
        f"see `enginery tools toolchains`{broken}"
    )


def _choose_named(toolchains: Sequence[Toolchain], name: str) -> Choice:
    toolchain = next((toolchain for toolchain in toolchains if toolchain.name == name), None)
    if toolchain is None:
        listing = ", ".join(toolchain.name for toolchain in toolchains) or "none"
        return Choice(problem=f"no toolchain {name!r}; have {listing} (see `enginery tools toolchains`)")
    if toolchain.problem:
        return Choice(problem=f"toolchain {name!r}: {toolchain.problem}")
    return Choice(toolchain=toolchain)


def matching(versions: Mapping[str, str], toolchains: Sequence[Toolchain] | None = None) -> Toolchain:
    """The toolchain that loads what `versions` built; BackendUnavailable without one.

    Versions of TensorRT-LLM and TensorRT must be the same to the patch: an engine is refused by any other.
    """
    have = discover(None, os.environ) if toolchains is None else toolchains
    names = [name for name in BOUND if versions.get(name)]
    for toolchain in have:
        if not toolchain.problem and all(toolchain.versions.get(name) == versions[name] for name in names):
            return toolchain
    request = ", ".join(f"{name} {versions[name]}" for name in names)
    listing = (
        ", ".join(f"{toolchain.name} ({toolchain.version or toolchain.problem})" for toolchain in have)
        or "none"
    )
    raise BackendUnavailable(
        f"no toolchain with {request} on this host, have {listing}; "
        f"install it, or declare it in {declared.place(os.environ)}"
    )


def _find_on_path(env: Mapping[str, str]) -> Iterator[Toolchain]:
    path = env.get("PATH", "")
    program = next(filter(None, (shutil.which(name, path=path) for name in PROGRAMS)), None)
    if program is None:
        return
    # resolved, to be compared with the declared ones, which are resolved too
    directory = Path(program).resolve().parent
    python = _find_python(Path(program), path)
    yield Toolchain(
        name=ON_PATH,
        kind="path",
        location=str(directory),
        programs=_find_outside(directory, path) | ({"python": python} if python else {}),
    )


def _find_python(program: Path, path: str) -> str | None:
    """The Python that a program's first line names, else the one beside it."""
    with program.open("rb") as file:
        # bounded: the first line of a binary may be the whole file
        line = file.readline(4096)
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name.startswith("python") and Path(words[0]).is_file():
        return words[0]
    if len(words) > 1 and Path(words[0]).name == "env":
        return shutil.which(words[1], path=path)
    return shutil.which("python3", path=str(program.resolve().parent))


def _list_declared(env: Mapping[str, str]) -> Iterator[Toolchain]:
    file, entries = declared.read(env)
    for name, entry in entries.items():
        yield (
            _describe_environment(name, entry, file, env)
            if entry.environment
            else _describe_container(name, entry, file)
        )


def _describe_environment(name: str, entry: Declared, file: Path, env: Mapping[str, str]) -> Toolchain:
    root = file.parent / Path(str(entry.environment)).expanduser()
    programs = _find_outside(root / "bin", env.get("PATH", ""))
    problem = "" if (root / "bin" / "python").exists() else f"{root} has no bin/python; correct {file}"
    return Toolchain(
        name=name,
        kind="environment",
        location=str(root),
        launcher=entry.launcher,
        programs=programs,
        problem=problem,
    )


def _describe_container(name: str, entry: Declared, file: Path) -> Toolchain:
    image = str(entry.image)
    # a `.sif` or `.sqsh` file is found beside the declaring file; a reference names none
    if (file.parent / image).is_file():
        image = str(file.parent / image)
    return Toolchain(
        name=name,
        kind="container",
        location=image,
        runtime=str(entry.runtime),
        launcher=entry.launcher,
        user=f"{os.getuid()}:{os.getgid()}" if entry.runtime == "docker" else "",
    )


def _find_outside(directory: Path, path: str) -> dict[str, str]:
    """Programs that are not in the directory but on PATH."""
    programs = {name: shutil.which(name, path=path) for name in OUTSIDE if not (directory / name).exists()}
    return {name: program for name, program in programs.items() if program}
