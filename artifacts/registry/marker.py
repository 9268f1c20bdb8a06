"""Beside a store's own registry: that there is one, and which: one that is gone is no new one."""

import json
from pathlib import Path

from artifacts.actor import whoami
from artifacts.errors import StoreUnusable

MARKER, FILE = "registry.json", "registry.db"


def text(bound_at: str | None) -> bytes:
    """What the marker holds; `bound_at` is when the registry was bound to its store, which no other has."""
    return json.dumps({"registry": FILE, "bound_at": bound_at, "by": whoami()}).encode()


def bound_at(text: bytes | None) -> str | None:
    """When the registry that the marker knows was bound; None where it does not say: early ones did not."""
    try:
        value = json.loads(text or b"{}").get("bound_at")
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def beside(file: Path | None) -> bool:
    """Whether the file is, or was, the own registry of a store that published to it."""
    return file is not None and file.name == FILE and (file.parent / MARKER).exists()


def require_never_was(url: str, *, was_known: bool, schema: int | None) -> None:
    """Refuses to take a registry that was `known` before its `schema` was read for a new one."""
    if was_known and schema is None:
        raise StoreUnusable(f"registry {url} {GONE}")


_OR_GIVE_UP = f"restore it from a backup, or remove {MARKER} from the store to give those versions up"

GONE = (
    f"is gone, or has no tables, and {MARKER} in the store says that versions were published to it;"
    f" {_OR_GIVE_UP}"
)

OTHER = (
    f"is not the one that versions of this store were published to ({MARKER} in the store says so);"
    f" {_OR_GIVE_UP}"
)
