"""What differs between engine backends; each is a folder of `pipeline/engines/` that answers all of it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from pipeline.backend.build_request import BuildRequest
from pipeline.backend.deployment import ServedFiles
from pipeline.backend.draft_net import DraftNet
from pipeline.backend.engine_memory import Memory
from pipeline.backend.foreign_engine import ForeignFormat
from pipeline.backend.lint_rule import Rule


class Backend(Protocol):
    """What is asked of a backend before and after a build; building and running happen in child processes."""

    @property
    def uses_toolchain(self) -> bool:
        """Whether it builds with a TensorRT-LLM installation outside our environment."""

    @property
    def on_gpu(self) -> bool:
        """Whether each rank has a GPU of the target's type; else all share the building host's memory."""

    @property
    def quantizes_at_build(self) -> bool:
        """Whether the builder rounds weight-only formats itself: checkpoints then hold source weights."""

    @property
    def holds_code(self) -> bool:
        """Whether loading an engine runs compiled code that is part of it."""

    @property
    def server(self) -> str | None:
        """The exporter whose server loads the engine itself; None: Enginery's own runtime does."""

    @property
    def checkpoint(self) -> Literal["sharded_checkpoint", "quantized_checkpoint"]:
        """The step whose output it builds from; an unquantized `quantized_checkpoint` is the source."""

    @property
    def build(self) -> str:
        """`module:function` that builds an engine in a child process; in no key, so that it may move."""

    @property
    def runner(self) -> str:
        """Module with `score`, `generate` and `measure`, for child processes."""

    @property
    def memory(self) -> Memory:
        """Memory that building and serving take."""

    @property
    def advice(self) -> Sequence[Rule]:
        """Its rules of `enginery lint`, what gains most first."""

    @property
    def foreign(self) -> ForeignFormat | None:
        """How an engine is recognised that its builder wrote without Enginery; None where there are none."""

    def options(self, request: BuildRequest) -> type[BaseModel]:
        """Model of `engine.options`: frozen, closed, documented at the field; may depend on the toolchain."""

    def missing(self, request: BuildRequest) -> str | None:
        """What the host lacks and how to get it; None when the backend can build here."""

    def reasons(self, request: BuildRequest) -> list[str]:
        """Why this backend cannot build the engine, each with the recipe field to change."""

    def eagle_reasons(self, net: DraftNet, request: BuildRequest) -> Iterable[str]:
        """Why an EAGLE net cannot propose tokens to this engine; SourceError for an unreadable net."""

    def notes(self, request: BuildRequest) -> list[str]:
        """Options whose effective value the recipe does not give, each with the reason."""

    def settings(self, request: BuildRequest) -> dict[str, Any]:
        """The resolved settings: every option with its effective value, as JSON; part of the engine's key."""

    def identity(self, request: BuildRequest) -> dict[str, Any]:
        """What of the host and of the toolchain enters the engine's key."""

    def read_served(self, directory: Path, about: Mapping[str, Any]) -> ServedFiles:
        """Reads an engine's files for servers; `about` is its engine.json. ExportRefused for broken files."""

    def suggested_for(self, programs: Mapping[str, str], *, on_gpu: bool) -> bool:
        """Whether a recipe for a host with these programs, and with or without GPUs, names this backend."""
