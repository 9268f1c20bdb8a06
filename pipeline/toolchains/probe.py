"""Asks a toolchain for its versions, and remembers the answer while nothing it rests on changes.

An answer of an environment rests on its programs and the directories of its packages, one of an image on the
image's digest. A failed probe is not remembered.
"""

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifacts.digest import of_json, signature
from pipeline.process import process
from pipeline.toolchains.toolchain import Toolchain

SCRIPT = Path(__file__).with_name("versions.py")

TIMEOUT_S = 120.0
"""A container's first start reads the image from disk."""

MISSING = "its Python has no tensorrt_llm; install tensorrt-llm there, or correct the entry"


@dataclass(frozen=True, slots=True)
class Memory:
    """Answers of earlier probes, in one JSON file; without a file nothing is remembered."""

    file: Path | None

    def recall(self, name: str) -> Mapping[str, str] | None:
        """Versions of an answer that still holds."""
        entry = self._read_entries().get(name)
        # a path that is gone has the signature "", which differs as well
        if entry is None or any(_signature(path) != seen for path, seen in entry["watch"].items()):
            return None
        versions: Mapping[str, str] = entry["versions"]
        return versions

    def keep(self, name: str, versions: Mapping[str, str], watch: list[str]) -> None:
        """Adds an answer; concurrent writers may lose one another's, and a full or read-only disk all.

        That costs a probe: whoever needs the place says what is wrong with it.
        """
        if self.file is None:
            return
        entries = self._read_entries() | {
            name: {"versions": dict(versions), "watch": {path: _signature(path) for path in watch}}
        }
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Write aside, then replace: a reader never sees half a file.
            aside = self.file.with_name(f".{self.file.name}.{os.getpid()}")
            try:
                aside.write_text(json.dumps(entries))
                aside.replace(self.file)
            finally:
                aside.unlink(missing_ok=True)

    def _read_entries(self) -> dict[str, Any]:
        if self.file is None:
            return {}
        try:
            document = json.loads(self.file.read_text())
        except (OSError, ValueError):  # not there, or cut off by a full disk: as good as none
            return {}
        return document if isinstance(document, dict) else {}


def probed(toolchain: Toolchain, memory: Memory) -> Toolchain:
    """The toolchain with its versions, or with the problem that keeps them from being known."""
    image = ""
    if toolchain.kind == "container":
        image = digest_of(toolchain)
        if not image:
            return replace(toolchain, problem=_describe_missing_image(toolchain))
    name = of_json(toolchain.as_dict() | {"image": image})
    versions = memory.recall(name)
    if versions is None:
        # as text, since an image does not see our files; -E, as PYTHONPATH is for our own Python
        answer = process.capture(
            toolchain.argv("python", "-E", "-c", SCRIPT.read_text()), timeout_s=TIMEOUT_S
        )
        # a failure is not kept: it may be mended without any watched path changing
        if answer is None:
            command = shlex.join(toolchain.argv("python", "--version"))
            return replace(toolchain, problem=f"its Python does not run; try `{command}`")
        document = _parse_answer(answer)
        versions = document["versions"] | ({"image": image} if image else {})
        if "tensorrt_llm" not in versions:
            return replace(toolchain, problem=MISSING)
        # an image cannot change under its digest, which is in the name
        watch = [] if image else [*document["watch"], *_list_programs(toolchain)]
        memory.keep(name, versions, watch)
    return replace(toolchain, versions=versions)


def digest_of(toolchain: Toolchain) -> str:
    """Digest of an image on this host; of a file, what its name, size and times come to; empty: not here."""
    if toolchain.runtime in ("docker", "podman"):
        argv = [toolchain.runtime, "image", "inspect", "--format", "{{.Id}}", toolchain.location]
        return (process.capture(argv) or "").strip()
    if Path(toolchain.location).exists():
        # not hashed: an image file has gigabytes
        return of_json(_signature(toolchain.location))
    if toolchain.runtime == "enroot":
        containers = (process.capture(["enroot", "list"]) or "").split()
        return of_json(toolchain.location) if toolchain.location in containers else ""
    return ""


PULL = {
    "docker": "run `docker pull {}`",
    "podman": "run `podman pull {}`",
    "apptainer": "make the file with `apptainer pull`",
    "enroot": "make it with `enroot import` and `enroot create`",
}


def _describe_missing_image(toolchain: Toolchain) -> str:
    cure = PULL[toolchain.runtime].format(toolchain.location)
    return f"image {toolchain.location} is not on this host, or {toolchain.runtime} is not; {cure}"


def _list_programs(toolchain: Toolchain) -> list[str]:
    names = ("trtllm-build", "trtllm-serve", "trtllm-bench", "python")
    return [path for path in map(toolchain.program, names) if Path(path).exists()]


def _parse_answer(answer: str) -> dict[str, Any]:
    """The last line: an image's entry point may print a banner before it."""
    document: dict[str, Any] = json.loads(answer.strip().splitlines()[-1])
    return document


def _signature(path: str) -> str:
    try:
        return signature(Path(path))
    except OSError:
        return ""
