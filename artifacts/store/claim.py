"""Reads leases and sweep markers; a malformed one protects everything, for a limited time."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from obstore.store import ObjectStore

from artifacts.errors import ArtifactCorrupt, StoreUnusable
from artifacts.store.objects import Meta, list_objects, read, write

log = logging.getLogger(__name__)

FOLDER = "leases"
SWEEP = "sweep-"
"""Prefix of the names of sweep markers."""

LONGEST_TTL_S = 3600.0
"""Longest accepted time to live of a lease, and the one assumed for an unreadable lease."""

AHEAD_S = 5.0
"""Accepted lead of an object's time over the store's own clock."""

WORD = 200
"""Most characters of a holder or purpose that messages show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A lease or sweep marker, as another process reads it."""

    path: str
    keys: tuple[str, ...]
    """Keys of artifacts that are being built, read or moved."""
    blobs: tuple[str, ...]
    """Digests of contents that are being transferred before their artifact is committed."""
    what: str
    holder: str
    """`user@host`."""
    ttl_s: float
    age_s: float
    """Since its last renewal, by the store's clock."""
    damage: str = ""
    """Why it cannot be read; the artifacts that it protects are then unknown."""

    @property
    def is_sweep(self) -> bool:
        """Whether it is a sweep marker, which new leases wait for."""
        return self.path.startswith(f"{FOLDER}/{SWEEP}")

    @property
    def is_dead(self) -> bool:
        """Whether its holder has died, or has lost it."""
        return self.age_s > 2 * self.ttl_s

    def require_readable(self) -> None:
        """Raise a StoreUnusable if it is unreadable and may still protect an artifact."""
        if self.damage and not self.is_dead:
            left_s = max(0.0, 2 * self.ttl_s - self.age_s)
            raise StoreUnusable(
                f"{self.path} is not a lease that this version reads ({self.damage}), so it is unknown what"
                f" it protects; it expires in {left_s / 60:.0f} minutes: wait, use the version that wrote it,"
                " or remove it once nothing uses the store"
            )


def claims(objects: ObjectStore, now: datetime, *, prefix: str = "") -> Iterator[Claim]:
    """Every lease and sweep marker whose name has the prefix, dead ones too; `now` is the store's time.

    An object dated in the future is written again, so that it expires: the store's clock was set back.
    """
    for meta in list_objects(objects, FOLDER):
        if not meta.path.startswith(f"{FOLDER}/{prefix}"):
            continue
        age_s = (now - meta.modified).total_seconds()
        content = _text(objects, meta)
        if content is None:  # ended since the listing
            continue
        if age_s < -AHEAD_S:
            _date_anew(objects, meta.path, content)
        yield _claim(meta.path, content, max(0.0, age_s))


def _text(objects: ObjectStore, meta: Meta) -> bytes | str | None:
    """Its bytes, or the reason why they cannot be read; None where it was removed."""
    try:
        return read(objects, meta.path)
    except ArtifactCorrupt as exc:
        return str(exc)


def _date_anew(objects: ObjectStore, path: str, content: bytes | str) -> None:
    """Write an object again, so that its age starts now; a living holder writes the same within seconds."""
    log.warning("%s is dated in the future: the clock was set back; its age counts from now", path)
    write(objects, path, content if isinstance(content, bytes) else b"")


def _claim(path: str, text: bytes | str, age_s: float) -> Claim:
    try:
        # A string is the reason why the bytes could not be read.
        if isinstance(text, str):
            raise ValueError(text)
        fields = json.loads(text)
        return Claim(
            path=path,
            keys=_words(fields["keys"]),
            blobs=_words(fields["blobs"]),
            what=_word(fields["what"]),
            holder=_word(fields["holder"]),
            ttl_s=_ttl(fields["ttl_s"]),
            age_s=age_s,
        )
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        damage = " ".join(_damage(exc).split())[:WORD]
        return Claim(
            # Not skipped: a sweep that cannot read what it protects must not go on.
            path=path, keys=(), blobs=(), what=f"what {path} stands for, which cannot be read,",
            holder="somebody", ttl_s=LONGEST_TTL_S, age_s=age_s, damage=damage,
        )  # fmt: skip


def _damage(exc: Exception) -> str:
    """The problem of an unreadable object."""
    match exc:
        case RecursionError():
            return "it is nested too deeply"
        case json.JSONDecodeError() | UnicodeDecodeError():
            return "it is not JSON"
        case KeyError():
            return f"it has no {exc.args[0]}"
        case TypeError():
            return "it is not a JSON object"
    return str(exc)


def _ttl(value: object) -> float:
    """Time to live in seconds, capped; ValueError for anything but a positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"ttl_s is {str(value)[:WORD]}, and not a number of seconds above 0")
    # Capped, so that one absurd lease cannot stop all sweeps for ever.
    return float(min(value, LONGEST_TTL_S))


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("keys and blobs are lists of strings")
    return tuple(value)


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("what and holder are strings")
    return "".join(letter if letter.isprintable() else "?" for letter in value[:WORD])
