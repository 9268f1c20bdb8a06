"""Exporters, one file each: a published engine as a server's configuration; the file is the registration.

`triton` writes a Triton model repository, `trtllm-serve` and `vllm` a start script, `k8s` a manifest around
one of the servers. Nothing here was ever executed against the servers themselves: names come from their
public sources, named at each table.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Protocol

from pipeline.backend.deployment import Deployment
from pipeline.errors import BackendUnavailable, ExportRefused
from pipeline.export.export_settings import Settings

EXTRAS = {"tritonclient": "triton", "google": "triton", "grpc": "triton"}
"""Package that an exporter imports -> extra of ours that installs it."""


class Exporter(Protocol):
    """What the command asks of an exporter; everything but writing is pure."""

    @property
    def settings(self) -> type[Settings]:
        """Model of the settings: closed, documented at the field."""

    def reasons(self, deployment: Deployment, settings: Any) -> list[str]:
        """Every reason why that server cannot serve it with these settings; empty when it can."""

    def files(self, deployment: Deployment, settings: Any) -> dict[str, str]:
        """Relative path -> text of every file; one that begins with `#!` is a program."""

    def trees(self, deployment: Deployment, settings: Any) -> Mapping[str, Path]:
        """Directory of the export -> directory of the store whose files belong there, unless referenced."""

    def next_steps(self, deployment: Deployment, settings: Any) -> list[str]:
        """What to type next."""


def names() -> list[str]:
    """Lists the targets."""
    return sorted(module.name.replace("_", "-") for module in iter_modules(__path__))


def exporter(target: str) -> Exporter:
    """Returns an exporter by name; BackendUnavailable where its package is not installed."""
    if target not in names():
        raise ExportRefused(f"unknown target {target!r}; have {', '.join(names())}")
    try:
        loaded: Exporter = import_module(f"{__name__}.{target.replace('-', '_')}").EXPORTER
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        extra = EXTRAS.get(package)
        # a module of our own that is missing is a bug, not a missing extra
        if extra is None:
            raise
        raise BackendUnavailable(
            f"exporting to {target} needs the package {package}; install enginery[{extra}]"
        ) from None
    return loaded


def export(
    target: str, deployment: Deployment, settings: Settings
) -> tuple[dict[str, str], Mapping[str, Path]]:
    """The files and trees of an export; ExportRefused with every reason where there are any."""
    chosen = exporter(target)
    reasons = chosen.reasons(deployment, settings)
    if reasons:
        raise ExportRefused(
            "\n".join([f"{deployment.label} cannot be exported to {target}:", *(f"  {r}" for r in reasons)])
        )
    return chosen.files(deployment, settings), chosen.trees(deployment, settings)
