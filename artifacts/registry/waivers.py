"""Waivers: rules of a policy that one version may violate until a moment, with a reason."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from artifacts.actor import whoami
from artifacts.errors import NotFound, PolicyInvalid
from artifacts.manifest import YEARS
from artifacts.registry import log, rows, seals, tables
from artifacts.registry.policy import WAIVABLE

LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A rule waived for one version and alias."""

    id: int
    name: str
    number: int
    alias: str
    rule: str
    reason: str
    granted_at: datetime
    granted_by: str
    until: datetime

    def is_open(self, moment: datetime) -> bool:
        """Whether it applies at a moment."""
        return moment < self.until

    def as_dict(self) -> dict[str, Any]:
        """The waiver as JSON values."""
        return {**asdict(self), "granted_at": self.granted_at.isoformat(), "until": self.until.isoformat()}

    def __str__(self) -> str:
        return (
            f"{self.rule} waived for @{self.alias} until {self.until:%Y-%m-%d %H:%M} UTC by "
            f"{self.granted_by}: {self.reason}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A requested waiver."""

    name: str
    number: int
    alias: str
    rule: str
    reason: str
    until: datetime

    def check(self, now: datetime) -> None:
        """Raise PolicyInvalid for a rule that cannot be waived, a time that is not ahead, or a bad reason."""
        if self.rule not in WAIVABLE:
            raise PolicyInvalid(f"rule {self.rule!r} cannot be waived; have {', '.join(WAIVABLE)}")
        # Before the next check: comparing it with `now`, which has a zone, would raise TypeError.
        if self.until.tzinfo is None:
            raise PolicyInvalid(f"a waiver until {self.until}: give a later moment, with its time zone")
        if self.until <= now:
            raise PolicyInvalid(
                f"a waiver until {self.until} is over; give a later moment than {now:%Y-%m-%d %H:%M} UTC"
            )
        if self.until.year not in YEARS:
            raise PolicyInvalid(f"a waiver until {self.until} is for ever; give a year up to {YEARS[-1]}")
        plain = self.reason.strip()
        # Lists show a waiver on one line, so the reason may hold no newline or control character.
        if not plain or len(plain) > LONGEST_REASON or not plain.isprintable():
            raise PolicyInvalid(
                f"reason {self.reason[:80]!r} is invalid; give 1 to {LONGEST_REASON} characters on one line"
            )


def grant(db: Connection, request: Request) -> Waiver:
    """Add a waiver and log it."""
    now = log.known_moment(db)
    request.check(now)
    row = {
        **asdict(request),
        "reason": request.reason.strip(),
        "until": request.until.astimezone(now.tzinfo).isoformat(),
        "granted_at": now.isoformat(),
        "granted_by": whoami(),
    }
    primary_key = db.execute(
        insert(tables.waiver).values(**rows.check_row(tables.waiver, row))
    ).inserted_primary_key
    assert primary_key is not None  # the table has one
    # The seal covers the id, which the database gives with the insertion.
    _seal(db, primary_key[0])
    granted = waiver(db.execute(select(tables.waiver).where(tables.waiver.c.id == primary_key[0])).one())
    log.record(db, request.name, "waived", {**granted.as_dict(), "waiver": granted.id})
    return granted


def end(db: Connection, number: int) -> Waiver:
    """End a waiver now and log it; NotFound for one that is not open."""
    now, table = log.known_moment(db), tables.waiver
    row = db.execute(select(table).where(table.c.id == number)).one_or_none()
    if row is None or not waiver(row).is_open(now):
        raise NotFound(f"no waiver {number} is open; `enginery registry waive` lists those that are")
    # Not deleted: an ended waiver stays as evidence of why an alias could move.
    db.execute(update(table).where(table.c.id == number).values(until=now.isoformat()))
    _seal(db, number)
    ended = waiver(db.execute(select(table).where(table.c.id == number)).one())
    log.record(db, ended.name, "waived", {**ended.as_dict(), "waiver": ended.id, "ended": True})
    return ended


def _seal(db: Connection, number: int) -> None:
    """Replace the seal of a waiver, after its id or its end was set."""
    table = tables.waiver
    row = db.execute(select(table).where(table.c.id == number)).mappings().one()
    db.execute(update(table).where(table.c.id == number).values(**seals.sealed(table, dict(row))))


def of(name: str | None = None, number: int | None = None) -> Select[Any]:
    """Query for waivers of a name, or of one version, oldest first."""
    table = tables.waiver
    query = select(table).order_by(table.c.id)
    if name is not None:
        query = query.where(table.c.name == name)
    return query if number is None else query.where(table.c.number == number)


def waiver(row: Row[Any]) -> Waiver:
    """The waiver in a row of the table; OddRow where the row is odd."""
    rows.require(tables.waiver, row)
    times = {name: datetime.fromisoformat(getattr(row, name)) for name in ("granted_at", "until")}
    whole = {name: value for name, value in row._asdict().items() if name != "seal"}
    return Waiver(**{**whole, **times})
