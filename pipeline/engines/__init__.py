"""Engine backends, one file or folder each; its name is the registration. Imports no torch."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from pipeline.backend.build_request import Wanted
from pipeline.errors import BackendUnavailable


class Backend(Protocol):
    """What the planner asks of a backend; the rest happens in child processes."""

    @property
    def uses_toolchain(self) -> bool:
        """Whether it builds with a TensorRT-LLM installation outside our environment."""

    @property
    def checkpoint(self) -> Literal["sharded_checkpoint", "quantized_checkpoint"]:
        """The step whose output it builds from; an unquantized `quantized_checkpoint` is the source."""

    @property
    def build(self) -> str:
        """`module:function` that builds an engine in a child process; in no key, so that it may move."""

    @property
    def runner(self) -> str:
        """Module with `score`, `generate` and `measure`, for child processes."""

    def options(self, wanted: Wanted) -> type[BaseModel]:
        """Model of `engine.options`: frozen, closed, documented at the field; may depend on the toolchain."""

    def missing(self, wanted: Wanted) -> str | None:
        """Says what the host lacks and how to get it; None when the backend can build here."""

    def reasons(self, wanted: Wanted) -> list[str]:
        """Lists why this backend cannot build the engine, each with the recipe field to change."""

    def notes(self, wanted: Wanted) -> list[str]:
        """Says which settings the builder would change without a word, and so are changed before it."""

    def settings(self, wanted: Wanted) -> dict[str, Any]:
        """Every option with its effective value, as JSON; part of the engine's key."""

    def identity(self, wanted: Wanted) -> dict[str, Any]:
        """What of the host and of the toolchain enters the engine's key."""


def names() -> list[str]:
    """Lists the backends."""
    return sorted(module.name for module in iter_modules(__path__))


def backend(name: str) -> Backend:
    """Returns a backend by name; BackendUnavailable for one that is unknown."""
    if name not in names():
        raise BackendUnavailable(f"unknown engine backend {name!r}; have {', '.join(names())}")
    found: Backend = import_module(f"{__name__}.{name}").BACKEND
    return found
