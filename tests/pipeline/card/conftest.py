"""Cards of published versions."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from artifacts.registry import open_registry
from pipeline.card.content import Card, Signature, Waiver
from tests.pipeline.published import NAME, publication

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def card(tmp_path: Path) -> Callable[..., Card]:
    """A card of a version published with these changes, with this standing."""

    def made(*, standing: dict[str, Any] | None = None, **changed: Any) -> Card:
        registry = open_registry(tmp_path / "registry.db")
        number = registry.publish(publication(alias="prod", **changed))
        name = changed.get("name", NAME)
        record = registry.resolve(f"{name}:{number}")
        events = tuple(registry.events(name))
        return Card(record=record, now=NOW, events=events, **(standing or {}))

    return made


def waiver(reason: str = "re-gating is queued", days: int = 3) -> Waiver:
    """A waiver that lasts so many days from `NOW`."""
    return Waiver(
        name=NAME,
        number=1,
        alias="prod",
        rule="max_age_days",
        reason=reason,
        granted_at=NOW - timedelta(days=9),
        granted_by="ana@ops",
        until=NOW + timedelta(days=days),
    )


def signature() -> Signature:
    """A signature by Ana."""
    return Signature(key_id="key-of-ana", signed_at=NOW, signed_by="ana@ops")
