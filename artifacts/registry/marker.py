"""The marker file beside a store's own registry, which tells a lost registry from one never created."""

import json
from pathlib import Path

from artifacts.actor import whoami
from artifacts.errors import StoreUnusable

MARKER, FILE = "registry.json", "registry.db"


def text(bound_at: str | None) -> bytes:
    """Contents of the marker; `bound_at`, when the registry was bound to its store, identifies it."""
    return json.dumps({"registry": FILE, "bound_at": bound_at, "by": whoami()}).encode()


def bound_at(text: bytes | None) -> str | None:
    """When the registry of the marker was bound; None where the marker does not record it, as early ones."""
    try:
        value = json.loads(text or b"{}").get("bound_at")
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def is_store_registry(file: Path | None) -> bool:
    """Whether a file is, or was, a store's own registry with publications."""
    # Other databases may be in the directory of a store; only this one belongs to it.
    return file is not None and file.name == FILE and (file.parent / MARKER).exists()


def require_not_lost(url: str, *, was_known: bool, schema: int | None) -> None:
    """Raise a StoreUnusable if a registry with a marker has no schema: it was lost.

    `was_known` must be read before `schema`: in the other order, a registry that another process creates in
    between would look lost.
    """
    if was_known and schema is None:
        raise StoreUnusable(f"registry {url} {GONE}")


_OR_GIVE_UP = f"restore it from a backup, or remove {MARKER} from the store to give those versions up"

GONE = (
    f"is missing, or has no tables, but {MARKER} in the store records that versions were published to it;"
    f" {_OR_GIVE_UP}"
)

OTHER = (
    f"is not the one that versions of this store were published to ({MARKER} in the store records it);"
    f" {_OR_GIVE_UP}"
)
