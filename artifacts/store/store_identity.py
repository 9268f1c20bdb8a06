"""Who a store is: an id that its files carry along, and the layout they are in."""

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
"""File, or object, that names a store."""

HEX = re.compile("[0-9a-f]{64}")

LAYOUT = 1
"""Layout of the files of a store that this version writes, and the newest it reads."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What `store.json` says."""

    layout: int
    """Number of the layout of the store's files."""
    id: str
    """64 hexadecimal digits, drawn at random when the store was first written."""

    def to_text(self) -> str:
        """The identity as a store holds it."""
        return seal(asdict(self))


def new_identity() -> Identity:
    """An identity that no other store has."""
    return Identity(layout=LAYOUT, id=secrets.token_hex(32))


def read_identity(text: str, where: str) -> Identity:
    """The identity in sealed text; a changed byte is an ArtifactCorrupt, a newer layout a StoreUnusable."""
    values = unseal(text, where)
    layout = values.get("layout")
    if isinstance(layout, int) and layout > LAYOUT:
        raise StoreUnusable(
            f"{where}: the store has layout {layout}, and this version reads up to {LAYOUT};"
            " use the version of enginery that wrote it"
        )
    if layout != LAYOUT or values.keys() != {"layout", "id"} or not HEX.fullmatch(str(values["id"])):
        raise ArtifactCorrupt(
            f"{where}: names no layout and id as every store has them; it is no store of ours"
        )
    return Identity(**values)


def identity_in(root: Path) -> Identity | None:
    """Identity of the store in a directory; None where nothing was written yet, or by an early version."""
    path = root / STORE
    try:
        text = path.read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return read_identity(text, str(path))


def identify(root: Path, staging: Path) -> Identity:
    """The identity of the store in a directory, written unless it has one; the first of several wins."""
    found = identity_in(root)
    if found is not None:
        return found
    lock = root / "locks" / f"{STORE}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = acquire(lock)
    try:
        found = identity_in(root)
        if found is None:
            found = new_identity()
            with scratch(staging, "store") as aside:
                (aside / STORE).write_text(found.to_text())
                sync(aside / STORE)
                (aside / STORE).replace(root / STORE)
    finally:
        release(lock, held)
    return found
