"""What the objects in the folder of leases say, whatever stands there: none of them lasts for ever."""

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
"""How the names of sweeps begin."""

LONGEST_TTL_S = 3600.0
"""No holder's promise is believed for longer, and what cannot be read counts as promised for so long."""

AHEAD_S = 5.0
"""How far ahead of the store's own clock the time of an object may be."""

WORD = 200
"""Characters of a holder, or of what it does, that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What an object in the folder says."""

    path: str
    keys: tuple[str, ...]
    """Artifacts that are being built, read or moved."""
    blobs: tuple[str, ...]
    """Digests of files that are being moved, of artifacts not yet committed where they go."""
    what: str
    holder: str
    """`user@host`."""
    ttl_s: float
    age_s: float
    """Since it was renewed, by the store's clock."""
    damage: str = ""
    """Why it cannot be read, so that what it names is not known."""

    @property
    def is_sweep(self) -> bool:
        """Whether it is a sweep, which leases wait for."""
        return self.path.startswith(f"{FOLDER}/{SWEEP}")

    @property
    def is_dead(self) -> bool:
        """Whether its holder has died or has lost it."""
        return self.age_s > 2 * self.ttl_s

    def require_readable(self) -> None:
        """Raise a StoreUnusable if it cannot be read and may still protect something."""
        if self.damage and not self.is_dead:
            left_s = max(0.0, 2 * self.ttl_s - self.age_s)
            raise StoreUnusable(
                f"{self.path} is no lease that this version reads ({self.damage}), so that what it protects"
                f" is not known; it ends by itself in {left_s / 60:.0f} minutes: wait, use the version that"
                " wrote it, or remove it once nothing uses the store"
            )


def claims(objects: ObjectStore, now: datetime, *, prefix: str = "") -> Iterator[Claim]:
    """Every lease and sweep whose name begins so, dead ones too; `now` is the store's time.

    One that is dated ahead of the store's clock, which was set back, is dated anew: it counts from now.
    """
    for meta in list_objects(objects, FOLDER):
        if not meta.path.startswith(f"{FOLDER}/{prefix}"):
            continue
        age_s = (now - meta.modified).total_seconds()
        content = _text(objects, meta)
        if content is None:  # it ended meanwhile
            continue
        if age_s < -AHEAD_S:
            _date_anew(objects, meta.path, content)
        yield _claim(meta.path, content, max(0.0, age_s))


def _text(objects: ObjectStore, meta: Meta) -> bytes | str | None:
    """Its bytes, or why there are none to be had; None where it is gone."""
    try:
        return read(objects, meta.path)
    except ArtifactCorrupt as exc:
        return str(exc)


def _date_anew(objects: ObjectStore, path: str, content: bytes | str) -> None:
    """A living holder would write the same within seconds; nobody does for one that died."""
    log.warning("%s is dated in the future: the clock was set back; it counts from now", path)
    write(objects, path, content if isinstance(content, bytes) else b"")


def _claim(path: str, text: bytes | str, age_s: float) -> Claim:
    try:
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
            path=path, keys=(), blobs=(), what=f"what {path} stands for, which cannot be read,",
            holder="somebody", ttl_s=LONGEST_TTL_S, age_s=age_s, damage=damage,
        )  # fmt: skip


def _damage(exc: Exception) -> str:
    """What is wrong with an object that cannot be read, in words."""
    match exc:
        case RecursionError():
            return "it is nested too deeply"
        case json.JSONDecodeError() | UnicodeDecodeError():
            return "it is no JSON"
        case KeyError():
            return f"it has no {exc.args[0]}"
        case TypeError():
            return "it is no JSON object"
    return str(exc)


def _ttl(value: object) -> float:
    """Seconds; what no holder can have meant is a ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"ttl_s is {str(value)[:WORD]}, and not a number of seconds above 0")
    return float(min(value, LONGEST_TTL_S))


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("keys and blobs are lists of strings")
    return tuple(value)


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("what and holder are strings")
    return "".join(letter if letter.isprintable() else "?" for letter in value[:WORD])
