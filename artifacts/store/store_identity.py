"""The identity of a store: an id in its own file, and the layout of its files."""

import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from artifacts.errors import ArtifactCorrupt, StoreUnusable
from artifacts.manifest import seal, unseal
from artifacts.store.lock import acquire, release
from artifacts.store.scratch import scratch
from artifacts.store.tree import sync

STORE = "store.json"
"""File or object with the identity of a store."""

HEX = re.compile("[0-9a-f]{64}")

LAYOUT = 1
"""Layout that this version writes, and the newest that it reads."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The contents of `store.json`."""

    layout: int
    """Number of the layout of the store's files."""
    id: str
    """64 hexadecimal digits, drawn at random when the store was first written."""

    def to_text(self) -> str:
        """The identity as sealed text."""
        return seal(asdict(self))


def new_identity() -> Identity:
    """An identity that no other store has."""
    return Identity(layout=LAYOUT, id=secrets.token_hex(32))


def read_identity(text: str, place: str) -> Identity:
    """The identity in sealed text; a changed byte is an ArtifactCorrupt, a newer layout a StoreUnusable."""
    values = unseal(text, place)
    layout = values.get("layout")
    if isinstance(layout, int) and layout > LAYOUT:
        raise StoreUnusable(
            f"{place}: the store has layout {layout}, and this version reads up to {LAYOUT};"
            " use the version of enginery that wrote it"
        )
    if layout != LAYOUT or values.keys() != {"layout", "id"} or not HEX.fullmatch(str(values["id"])):
        raise ArtifactCorrupt(f"{place}: has no valid layout and id; enginery did not write it")
    return Identity(**values)


def identity_in(root: Path) -> Identity | None:
    """Identity of the store in a directory; None before the first write and for stores of early versions."""
    path = root / STORE
    try:
        text = path.read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return read_identity(text, str(path))


def identify(root: Path, staging: Path) -> Identity:
    """The identity of the store in a directory; writes one if there is none, the first writer wins."""
    identity = identity_in(root)
    if identity is not None:
        return identity
    lock = root / "locks" / f"{STORE}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = acquire(lock)
    try:
        identity = identity_in(root)
        if identity is None:
            identity = new_identity()
            with scratch(staging, "store") as directory:
                (directory / STORE).write_text(identity.to_text())
                sync(directory / STORE)
                # Complete before it has its name: other processes never read half of it.
                (directory / STORE).replace(root / STORE)
    finally:
        release(lock, handle)
    return identity
