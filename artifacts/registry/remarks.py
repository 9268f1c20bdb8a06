"""Notices about a version: collected, imported, waived, signed.

Every command, page and card takes its words from this module.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, true

from artifacts.finding.listed import Listed, Named, collected_note
from artifacts.registry import endorsement, log, rows, tables, waivers
from artifacts.registry.waivers import Waiver
from artifacts.trust.signing import Signature
from artifacts.version import IMPORTED, PASS, VersionRecord

AT_ONCE = 400
"""Most versions that a query lists one by one; for more, it reads the whole table."""

KEY_CHARS = 16
"""Characters of a key's id that messages show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notice about a version, for people."""

    tone: str
    """`bad`, `warn` or `info`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remarks:
    """Waivers and signatures of a version."""

    now: datetime
    """The time of reading, by the database's clock but not before its latest event; decides which waivers
    are open."""
    waivers: tuple[Waiver, ...] = ()
    """All waivers, ended ones included, oldest first."""
    signatures: tuple[Signature, ...] = ()
    """Signatures over its manifest, unverified, oldest first."""

    @property
    def open_waivers(self) -> tuple[Waiver, ...]:
        """Waivers that have not ended."""
        return tuple(waiver for waiver in self.waivers if waiver.is_open(self.now))

    def as_dict(self) -> dict[str, Any]:
        """Open waivers and signatures as JSON values."""
        return {
            "waivers": [item.as_dict() for item in self.open_waivers],
            "signatures": [
                {"key_id": item.key_id, "signed_at": item.signed_at.isoformat(), "signed_by": item.signed_by}
                for item in self.signatures
            ],
        }


def notices(record: VersionRecord | Listed, remarks: Remarks) -> list[Notice]:
    """Warnings about the version, worst first, then its signatures."""
    return [Notice(tone=tone, text=text) for tone, text in _notices(record, remarks)]


def _notices(record: VersionRecord | Listed, remarks: Remarks) -> Iterator[tuple[str, str]]:
    collected = collected_note(record)
    if collected is not None:
        yield "bad", f"{collected}: it cannot be pulled; build its recipe again"
    if record.origin == IMPORTED:
        yield "warn", f"{record.verdict}: imported, built elsewhere; no accuracy gate has scored it"
    elif record.verdict != PASS:
        yield "bad", f"the accuracy verdict is {record.verdict}, not {PASS}"
    for waiver in remarks.open_waivers:
        yield "warn", str(waiver)
    for signature in remarks.signatures:
        yield (
            "info",
            f"signed by {signature.signed_by} on {signature.signed_at:%Y-%m-%d}, key"
            f" {signature.key_id[:KEY_CHARS]}",
        )
    if not remarks.signatures:
        yield "info", "not signed"


def marks(record: VersionRecord | Listed, remarks: Remarks) -> str:
    """The notices as a few words for a list: `collected, waived for @prod, signed`."""
    words = ["collected"] if collected_note(record) is not None else []
    words += ["imported"] if record.origin == IMPORTED else []
    words += [
        f"waived for @{alias}" for alias in dict.fromkeys(waiver.alias for waiver in remarks.open_waivers)
    ]
    words += ["signed"] if remarks.signatures else []
    return ", ".join(words)


def read(db: Connection, versions: Collection[Named]) -> dict[Named, Remarks]:
    """Waivers and signatures of each of these versions."""
    granted: defaultdict[Named, list[Waiver]] = defaultdict(list)
    for waiver in rows.read_values(
        db.execute(waivers.of().where(_rows_of(tables.waiver.c, versions))), waivers.waiver
    ):
        granted[waiver.name, waiver.number].append(waiver)
    # Reading the newest event costs a query, which only waivers need.
    now = log.known_moment(db) if granted else log.moment(db)
    signed: defaultdict[Named, list[Signature]] = defaultdict(list)
    version, signature = tables.version.c, tables.signature
    # One signature may belong to several versions, which have the same content.
    joined = select(signature, version.name, version.number).join(
        signature, signature.c.manifest_digest == version.manifest_digest
    )
    order = (signature.c.signed_at, signature.c.key_id)
    for row in rows.select_rows(db, signature, joined.where(_rows_of(version, versions)).order_by(*order)):
        signed[row.name, row.number].append(endorsement.signature(row))
    return {
        named: Remarks(now=now, waivers=tuple(granted[named]), signatures=tuple(signed[named]))
        for named in versions
    }


def _rows_of(columns: Any, versions: Collection[Named]) -> ColumnElement[bool]:
    """A condition that selects at least the rows of these versions.

    Names and numbers are compared separately: SQLite scans the whole table for pairs.
    """
    if len(versions) > AT_ONCE:
        return true()
    names, numbers = {name for name, _ in versions}, {number for _, number in versions}
    # Too many rows do no harm: the caller picks by the pair.
    condition: ColumnElement[bool] = columns.name.in_(names) & columns.number.in_(numbers)
    return condition
