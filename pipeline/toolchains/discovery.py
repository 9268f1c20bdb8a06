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
from pipeline.toolchains.toolchain import Choice, Toolchain

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
    named = list(_declared(env))
    known = {(Path(one.location) / "bin").resolve() for one in named if one.kind == "environment"}
    found = [*(one for one in _on_path(env) if Path(one.location) not in known), *named]
    with ThreadPoolExecutor(max(1, len(found))) as pool:
        return tuple(pool.map(lambda one: one if one.problem else probed(one, memory), found))


def choose(found: Sequence[Toolchain], name: str | None) -> Choice:
    """The toolchain of that name, or without a name the only one that works; else why there is none."""
    if name is not None:
        return _named(found, name)
    working = [one for one in found if not one.problem]
    if len(working) == 1:
        return Choice(toolchain=working[0])
    if working:
        told = ", ".join(f"{one.name} ({one.version})" for one in working)
        return Choice(problem=f"several toolchains: {told}; name one of them with engine.toolchain")
    broken = "".join(f"; {one.name}: {one.problem}" for one in found)
    return Choice(
        problem="no TensorRT-LLM: none is on PATH and none is declared that works; "
        f"see `enginery tools toolchains`{broken}"
    )


def _named(found: Sequence[Toolchain], name: str) -> Choice:
    one = next((one for one in found if one.name == name), None)
    if one is None:
        known = ", ".join(one.name for one in found) or "none"
        return Choice(problem=f"no toolchain {name!r}; have {known} (see `enginery tools toolchains`)")
    if one.problem:
        return Choice(problem=f"toolchain {name!r}: {one.problem}")
    return Choice(toolchain=one)


def matching(versions: Mapping[str, str], found: Sequence[Toolchain] | None = None) -> Toolchain:
    """The toolchain that loads what `versions` built; BackendUnavailable without one.

    Versions of TensorRT-LLM and TensorRT must be the same to the patch: an engine is refused by any other.
    """
    have = discover(None, os.environ) if found is None else found
    names = [name for name in ("tensorrt_llm", "tensorrt") if versions.get(name)]
    for one in have:
        if not one.problem and all(one.versions.get(name) == versions[name] for name in names):
            return one
    asked = ", ".join(f"{name} {versions[name]}" for name in names)
    told = ", ".join(f"{one.name} ({one.version or one.problem})" for one in have) or "none"
    raise BackendUnavailable(
        f"no toolchain with {asked} on this host, have {told}; "
        f"install it, or declare it in {declared.place(os.environ)}"
    )


def _on_path(env: Mapping[str, str]) -> Iterator[Toolchain]:
    path = env.get("PATH", "")
    program = next(filter(None, (shutil.which(name, path=path) for name in PROGRAMS)), None)
    if program is None:
        return
    directory = Path(program).resolve().parent
    python = _python_of(Path(program), path)
    yield Toolchain(
        name=ON_PATH,
        kind="path",
        location=str(directory),
        programs=_outside(directory, path) | ({"python": python} if python else {}),
    )


def _python_of(program: Path, path: str) -> str | None:
    """The Python that a program's first line names, else the one beside it."""
    with program.open("rb") as file:
        line = file.readline(4096)
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name.startswith("python") and Path(words[0]).is_file():
        return words[0]
    if len(words) > 1 and Path(words[0]).name == "env":
        return shutil.which(words[1], path=path)
    return shutil.which("python3", path=str(program.resolve().parent))


def _declared(env: Mapping[str, str]) -> Iterator[Toolchain]:
    file, entries = declared.read(env)
    for name, entry in entries.items():
        yield _environment(name, entry, file, env) if entry.environment else _container(name, entry, file)


def _environment(name: str, entry: Declared, file: Path, env: Mapping[str, str]) -> Toolchain:
    root = file.parent / Path(str(entry.environment)).expanduser()
    programs = _outside(root / "bin", env.get("PATH", ""))
    problem = "" if (root / "bin" / "python").exists() else f"{root} has no bin/python; correct {file}"
    return Toolchain(
        name=name,
        kind="environment",
        location=str(root),
        launcher=entry.launcher,
        programs=programs,
        problem=problem,
    )


def _container(name: str, entry: Declared, file: Path) -> Toolchain:
    image = str(entry.image)
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


def _outside(directory: Path, path: str) -> dict[str, str]:
    """Programs that are not in the directory but on PATH."""
    found = {name: shutil.which(name, path=path) for name in OUTSIDE if not (directory / name).exists()}
    return {name: program for name, program in found.items() if program}
