"""Cards of published versions."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from artifacts.registry.registry import open_registry
from artifacts.registry.remarks import Remarks
from artifacts.registry.waivers import Waiver
from artifacts.trust.signing import Signature
from pipeline.pages.card.card_content import Card
from tests.pipeline.published import NAME, publication

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def card(tmp_path: Path) -> Callable[..., Card]:
    """A card of a version published with these changes, that others said this of."""

    def made(
        *,
        waivers: tuple[Waiver, ...] = (),
        signatures: tuple[Signature, ...] = (),
        read: dict[str, Any] | None = None,
        **changed: Any,
    ) -> Card:
        registry = open_registry(tmp_path / "registry.db")
        number = registry.publish(publication(alias="prod", **changed))
        name = changed.get("name", NAME)
        record = registry.resolve(f"{name}:{number}")
        events = tuple(registry.events(name))
        remarks = Remarks(now=NOW, waivers=waivers, signatures=signatures)
        return Card(record=record, remarks=remarks, events=events, **(read or {}))

    return made


def waiver(reason: str = "re-gating is queued", days: int = 3) -> Waiver:
    """A waiver that lasts so many days from `NOW`."""
    return Waiver(
        id=1,
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
    return Signature(
        manifest_digest="d" * 64, key_id="key-of-ana", bundle="{}", signed_at=NOW, signed_by="ana@ops"
    )
