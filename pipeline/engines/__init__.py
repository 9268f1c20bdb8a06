"""Engine backends, one folder each; its name is the registration. Imports no torch."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from pipeline.backend.protocol import Backend
from pipeline.errors import BackendUnavailable


def names() -> list[str]:
    """Lists the backends."""
    return sorted(module.name for module in iter_modules(__path__))


def backend(name: str) -> Backend:
    """Returns a backend by name; BackendUnavailable for one that is unknown."""
    if name not in names():
        raise BackendUnavailable(f"unknown engine backend {name!r}; have {', '.join(names())}")
    chosen: Backend = import_module(f"{__name__}.{name}").BACKEND
    return chosen


def find_backend(name: str | None) -> Backend | None:
    """Returns a backend by name; None for one that this version does not know, or for none."""
    return backend(name) if name is not None and name in names() else None


def suggest(programs: Mapping[str, str], *, on_gpu: bool) -> str:
    """Names the backend for a recipe that a host with, or without, GPUs is to serve with these programs."""
    # Exactly one backend answers yes; a test holds that for releases before and after each change.
    return next(name for name in names() if backend(name).suggested_for(programs, on_gpu=on_gpu))
