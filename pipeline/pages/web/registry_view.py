"""The registry as pages and API see it: the one module here that knows its methods and tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from artifacts.finding.compare import compare
from artifacts.finding.comparison import Comparison
from artifacts.finding.match import Match
from artifacts.registry import rows, tables
from artifacts.registry.database import open_database
from artifacts.registry.registry import open_registry
from artifacts.registry.waivers import Waiver
from artifacts.store.local import LocalStore
from artifacts.version import Event, VersionRecord
from pipeline.pages.card.card_content import Card
from pipeline.pages.card.card_reader import card_of
from pipeline.pages.sample_difference import paired
from pipeline.pages.web import paged_lists
from pipeline.pages.web.paged_lists import Engine, Page, Wanted

MOVES = ("alias_moved", "rolled_back")
"""Kinds of events that say where an alias went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasNow:
    """Where an alias points, since when and by whom, and where a rollback would take it."""

    name: str
    alias: str
    number: int
    moved_at: datetime
    moved_by: str
    collected: bool
    """Whether gc took the files of the version it points at."""
    was: int | None
    """Version before the last move; None where it has pointed nowhere else."""
    back: int | None
    """Version that a rollback takes it to; None where it cannot be rolled back."""
    obstacle: str
    """Why it cannot; empty where it can."""
    waivers: tuple[Waiver, ...]
    """Open ones of the version it points at, granted for it."""
    moves: tuple[Event, ...]
    """Where it has been, the last move first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Counts for /metrics and the first page."""

    names: int
    versions: dict[tuple[str, str, bool], int]
    """(verdict, origin, collected) -> versions."""
    events: dict[str, int]
    waivers_open: int
    aliases: list[tuple[str, str, int, datetime, bool]]
    """Name, alias, number, when it was moved, whether its files were collected."""


class Reading:
    """One registry, and the store that may hold its artifacts."""

    def __init__(
        self,
        registry_url: str,
        store: LocalStore | None = None,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        """`announce` is called after a change, refused ones too, so that subscribers hear of it."""
        self._announce = announce
        self.registry = open_registry(registry_url)
        self._db = open_database(registry_url)
        self._store = store

    @property
    def url(self) -> str:
        """Where the registry is, without the password; for logs, not for pages."""
        return self.registry.url

    def require(self) -> None:
        """Raises StoreUnusable unless the database answers."""
        # a registry that nobody has created yet is empty, not broken
        if self._db.exists():
            with self._db.reading() as db:
                db.execute(select(tables.schema.c.number))

    def engines(self, text: str = "", *, offset: int = 0, limit: int = 50) -> tuple[int, list[Engine]]:
        """How many names contain the words, and some of them."""
        return paged_lists.engines(self._db, text, offset=offset, limit=limit)

    def versions(self, query: Wanted, *, offset: int = 0, limit: int = 50) -> Page:
        """Versions, page by page."""
        return paged_lists.versions(self._db, query, offset=offset, limit=limit)

    def choices(self) -> dict[str, list[str]]:
        """What can be searched for."""
        return paged_lists.choices(self._db)

    def events(self, name: str = "", **bounds: Any) -> list[Event]:
        """The log, or a part of it."""
        return paged_lists.events(self._db, name, **bounds)

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant; otherwise NotFound."""
        return self.registry.resolve(reference)

    def find(self, query: Mapping[str, Any], rank: str = "speed", limit: int | None = None) -> list[Match]:
        """The first `limit` versions that suit, best first, then the others with the reasons."""
        return self.registry.find(rank=rank, limit=limit, **query)

    def aliases(self, name: str) -> list[AliasNow]:
        """Every alias of a name, with its history."""
        if not self._db.exists():
            return []
        alias, version = tables.alias, tables.version
        with self._db.reading() as db:
            aliases = rows.select_rows(
                db, alias, select(alias).where(alias.c.name == name).order_by(alias.c.alias)
            )
            collected = set(
                db.scalars(
                    select(version.c.number).where(
                        version.c.name == name, version.c.collected_at.is_not(None)
                    )
                )
            )
        moved = [event for event in self.registry.events(name) if event.kind in MOVES] if aliases else []
        waivers = self.open_waivers(name)
        standings = []
        for row in aliases:
            moves = [event for event in moved if event.detail["alias"] == row.alias]
            at = (row.number, row.alias)
            standings.append(
                AliasNow(
                    name=row.name,
                    alias=row.alias,
                    number=row.number,
                    moved_at=datetime.fromisoformat(row.moved_at),
                    moved_by=row.moved_by,
                    collected=row.number in collected,
                    **_way_back(moves, collected),
                    # waivers are for one version and one alias, and do not move along
                    waivers=tuple(
                        candidate for candidate in waivers if (candidate.number, candidate.alias) == at
                    ),
                    moves=tuple(reversed(moves)),
                )
            )
        return standings

    def card(self, reference: str) -> Card:
        """Everything known about a version."""
        return card_of(self.resolve(reference), self.registry, self._store)

    def compare(self, before: VersionRecord, after: VersionRecord) -> Comparison:
        """What differs, as `enginery diff` says it."""
        return compare(before, after, paired(self._store, before, after) if self._store else {})

    def open_waivers(self, name: str | None = None) -> list[Waiver]:
        """Waivers that count now, of a name or of all; the one that lasts longest first."""
        return sorted(self.registry.waivers(name), key=lambda waiver: waiver.until, reverse=True)

    def census(self, now: datetime) -> Census:
        """What there is, counted by the database."""
        if not self._db.exists():
            return Census(names=0, versions={}, events={}, waivers_open=0, aliases=[])
        version, alias, log, waiver = tables.version, tables.alias, tables.log, tables.waiver
        is_collected = version.c.collected_at.is_not(None).label("gone")
        pointed = (version.c.name == alias.c.name) & (version.c.number == alias.c.number)
        with self._db.reading() as db:
            counted = select(version.c.verdict, version.c.origin, is_collected, func.count().label("times"))
            grouped = counted.group_by(version.c.verdict, version.c.origin, is_collected)
            kinds = select(log.c.kind, func.count().label("times")).group_by(log.c.kind)
            pointers = select(alias.c.name, alias.c.alias, alias.c.number, alias.c.moved_at, is_collected)
            every = pointers.join(version, pointed).order_by(alias.c.name, alias.c.alias)
            return Census(
                names=db.scalar(select(func.count(version.c.name.distinct()))) or 0,
                versions={
                    (row.verdict, row.origin, bool(row.gone)): row.times
                    for row in rows.select_rows(db, version, grouped)
                },
                events={row.kind: row.times for row in rows.select_rows(db, log, kinds)},
                # times are ISO 8601 in UTC, which sort as text
                waivers_open=db.scalar(
                    select(func.count()).select_from(waiver).where(waiver.c.until > now.isoformat())
                )
                or 0,
                aliases=[
                    (row.name, row.alias, row.number, datetime.fromisoformat(row.moved_at), bool(row.gone))
                    for row in rows.select_rows(db, alias, every)
                ],
            )

    def promote(self, reference: str, alias: str, *, expect: int | None) -> VersionRecord:
        """Points an alias at a version if it is where it is expected; otherwise AliasMoved."""
        record = self.resolve(reference)
        try:
            self.registry.promote(record.name, alias, to=record.number, expect=expect)
        finally:
            # a refusal is an event too
            self._announce()
        return record

    def rollback(self, name: str, alias: str, *, expect: int) -> int:
        """Points an alias back at the version before; returns its number."""
        move = self.registry.rollback(name, alias, expect=expect)
        self._announce()
        return move.now


def _way_back(moves: list[Event], collected: set[int]) -> dict[str, Any]:
    """Where an alias was, where a rollback goes, and why it cannot.

    A rollback goes back along the way that promotions led, so that a second one goes further back.
    """
    way: list[int] = []
    for event in moves:
        now = event.detail["now"]
        # a rollback shortens the way; to a version off it, it is a step like any other
        if event.kind == "rolled_back" and now in way[:-1]:
            while way[-1] != now:
                way.pop()
        else:
            way.append(now)
    was = moves[-1].detail["was"] if moves else None
    # an alias may have been promoted to the same version again
    before = [number for number in way[:-1] if number != way[-1]]
    reachable = [number for number in before if number not in collected]
    if reachable:
        return {"was": was, "back": reachable[-1], "obstacle": ""}
    lost = (
        f"the files of version {before[-1]} were collected"
        if before
        else "there is no version before this one to return to"
    )
    return {"was": was, "back": None, "obstacle": lost}
