"""Exporter `toy-server`: all that an exporter answers, in one file; tests put it into a copy of the product."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.backend.deployment import Deployment
from pipeline.export.export_settings import Settings


class ToySettings(Settings):
    """One setting of its own."""

    greeting: str = "hello"
    """What the server says first."""


class ToyServer:
    """A start script."""

    settings = ToySettings

    def reasons(self, deployment: Deployment, settings: ToySettings) -> list[str]:
        """A toy has one rank."""
        return ["it has several ranks"] if deployment.world_size > 1 else []

    def files(self, deployment: Deployment, settings: ToySettings) -> dict[str, str]:
        """The script."""
        return {"serve.sh": f"#!/bin/sh\necho {settings.greeting} from {deployment.label}\n"}

    def trees(self, deployment: Deployment, settings: ToySettings) -> Mapping[str, Path]:
        """The engine."""
        return {"engine": deployment.engine}

    def next_steps(self, deployment: Deployment, settings: ToySettings) -> list[str]:
        """Start it."""
        return [f"{settings.root}/serve.sh"]


EXPORTER = ToyServer()
