"""Backend `aoti`: ahead-of-time compiled PyTorch, a package per pipeline stage, a weight file per rank."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.backend.build_request import BuildRequest
from pipeline.backend.deployment import ServedFiles
from pipeline.backend.draft_net import DraftNet, rank_file_reasons
from pipeline.backend.lint_rule import Rule
from pipeline.backend.protocol import Backend
from pipeline.engines.aoti.aoti_memory import AotiMemory
from pipeline.engines.aoti.aoti_options import Options

ROTARY_SCALINGS = ("linear", "llama3", "longrope")
"""Rotary scalings that the model knows, besides none."""


class Aoti:
    """What is asked of this backend."""

    uses_toolchain = False
    on_gpu = False
    quantizes_at_build = False
    holds_code = True  # the packages of the stages are native code
    server = None
    memory = AotiMemory()
    advice: tuple[Rule, ...] = ()
    foreign = None
    checkpoint: Final = "sharded_checkpoint"
    build = "pipeline.engines.aoti.build_aoti:build"
    runner = "pipeline.engines.aoti.aoti_runner"

    def options(self, _request: BuildRequest) -> type[Options]:
        """Model of `engine.options`."""
        return Options

    def missing(self, request: BuildRequest) -> str | None:
        """Says what the host lacks; building needs torch and a C++ compiler."""
        tools = request.host.tools
        if "torch" not in tools:
            return "backend aoti needs torch; install enginery with its dependencies"
        if "c++" not in tools:
            return (
                "backend aoti needs a C++ compiler; install g++, or name one in the environment variable CXX"
            )
        return None

    def reasons(self, request: BuildRequest) -> list[str]:
        """Lists why this backend cannot build the engine, each with the recipe field to change."""
        engine, shape = request.engine, request.shape
        problems = []
        scaling = (shape.rope_scaling or {}).get("rope_type")
        if scaling is not None and scaling not in ROTARY_SCALINGS:
            problems.append(
                f"engine.backend: aoti does not compute rope_type {scaling!r}; "
                f"it computes none, {', '.join(ROTARY_SCALINGS)}"
            )
        original = (shape.rope_scaling or {}).get("original_max_position_embeddings")
        # `weights.rotary_tables` raises at the same bound; here it is said before anything is compiled.
        if scaling == "longrope" and original is not None and engine.max_seq_len > original:
            problems.append(
                f"engine.max_seq_len: {engine.max_seq_len} exceeds {original}, beyond which longrope rotates "
                f"every cached key by other factors, which aoti does not; choose at most {original}"
            )
        if engine.target != "host":
            problems.append(
                f"engine.target: {engine.target!r} is not built by aoti in this version; choose 'host'"
            )
        if request.speculative is not None:
            problems.append("speculative: aoti decodes one token per step; leave it out")
        return problems

    def notes(self, _request: BuildRequest) -> list[str]:
        """Says what would be changed: nothing is."""
        return []

    def settings(self, request: BuildRequest) -> dict[str, Any]:
        """Every option."""
        return Options.model_validate(request.engine.options).model_dump(mode="json")

    def identity(self, request: BuildRequest) -> dict[str, Any]:
        """What of the host enters the engine's key: torch, compiler, instruction set, cores to share."""
        host = request.host
        tools = {name: host.tools.get(name) for name in ("torch", "c++")}
        # Code is compiled for this CPU's instructions; `threads: auto` divides its cores among the ranks.
        return {**tools, "cpu": host.cpu, "cores": host.cores}

    def eagle_reasons(self, net: DraftNet, request: BuildRequest) -> Iterable[str]:
        """Why a net cannot be written into the rank files; no engine uses one yet, see `reasons`."""
        return rank_file_reasons(net, request)

    def read_served(self, _directory: Path, _about: Mapping[str, Any]) -> ServedFiles:
        """Nothing for servers of others, which do not load it."""
        return ServedFiles()

    def suggested_for(self, _programs: Mapping[str, str], *, on_gpu: bool) -> bool:
        """Where there is no GPU."""
        return not on_gpu


BACKEND: Backend = Aoti()
