"""Backend `aoti`: ahead-of-time compiled PyTorch, a package per pipeline stage, a weight file per rank."""

from typing import Any, Final

from pipeline.backend.build_request import Wanted
from pipeline.engines.aoti.aoti_options import Options

ROTARY_SCALINGS = ("linear", "llama3", "longrope")
"""Rotary scalings that the model knows, besides none."""


class Aoti:
    """What the planner asks of this backend."""

    uses_toolchain = False
    checkpoint: Final = "sharded_checkpoint"
    build = "pipeline.engines.aoti.build_aoti:build"
    runner = "pipeline.engines.aoti.aoti_runner"

    def options(self, _wanted: Wanted) -> type[Options]:
        """Model of `engine.options`."""
        return Options

    def missing(self, wanted: Wanted) -> str | None:
        """Says what the host lacks; building needs torch and a C++ compiler."""
        tools = wanted.host.tools
        if "torch" not in tools:
            return "backend aoti needs torch; install enginery with its dependencies"
        if "c++" not in tools:
            return (
                "backend aoti needs a C++ compiler; install g++, or name one in the environment variable CXX"
            )
        return None

    def reasons(self, wanted: Wanted) -> list[str]:
        """Lists why this backend cannot build the engine, each with the recipe field to change."""
        engine, shape = wanted.engine, wanted.shape
        found = []
        scaling = (shape.rope_scaling or {}).get("rope_type")
        if scaling is not None and scaling not in ROTARY_SCALINGS:
            found.append(
                f"engine.backend: aoti does not compute rope_type {scaling!r}; "
                f"it computes none, {', '.join(ROTARY_SCALINGS)}"
            )
        original = (shape.rope_scaling or {}).get("original_max_position_embeddings")
        if scaling == "longrope" and original is not None and engine.max_seq_len > original:
            found.append(
                f"engine.max_seq_len: {engine.max_seq_len} exceeds {original}, beyond which longrope rotates "
                f"every cached key by other factors, which aoti does not; choose at most {original}"
            )
        if engine.target != "host":
            found.append(
                f"engine.target: {engine.target!r} is not built by aoti in this version; choose 'host'"
            )
        if wanted.speculative is not None:
            found.append("speculative: aoti decodes one token per step; leave it out")
        return found

    def notes(self, _wanted: Wanted) -> list[str]:
        """Says what would be changed: nothing is."""
        return []

    def settings(self, wanted: Wanted) -> dict[str, Any]:
        """Every option."""
        return Options.model_validate(wanted.engine.options).model_dump(mode="json")

    def identity(self, wanted: Wanted) -> dict[str, Any]:
        """What of the host enters the engine's key: torch, compiler, instruction set, cores to share."""
        host = wanted.host
        tools = {name: host.tools.get(name) for name in ("torch", "c++")}
        return {**tools, "cpu": host.cpu, "cores": host.cores}


BACKEND = Aoti()
