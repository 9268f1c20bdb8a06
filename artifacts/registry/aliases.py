"""Aliases: the versions they point at, their moves, and their history."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from artifacts.actor import whoami
from artifacts.errors import AliasMoved, NotFound, PolicyRefused
from artifacts.registry import log, rows, seals, tables
from artifacts.registry.event_details import WaivedRule
from artifacts.registry.judgement import Judgement
from artifacts.registry.names import check_apart
from artifacts.registry.policy import WAIVABLE
from artifacts.version import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change of an alias."""

    at: datetime
    by: str
    """`user@host`."""
    name: str
    alias: str
    was: int | None
    now: int
    rolled_back: bool
    waived: tuple[WaivedRule, ...] = ()
    """Rules that the version violated and that were waived at the time."""

    def as_dict(self) -> dict[str, Any]:
        """The move as JSON values."""
        return {**asdict(self), "at": self.at.isoformat(), "waived": list(self.waived)}


def move_of(event: Event) -> Move:
    """The move that an event of a kind in `log.MOVES` records."""
    detail = event.detail
    return Move(
        at=event.at,
        by=event.by,
        name=event.name,
        alias=detail["alias"],
        was=detail["was"],
        now=detail["now"],
        rolled_back=event.kind == "rolled_back",
        waived=tuple(detail.get("waived", ())),
    )


def path_of(moves: Sequence[Move]) -> list[int]:
    """Versions that an alias was promoted to and not rolled back from, oldest first; the last is current.

    A rollback shortens the path, so that a second rollback goes further back, not forward again.
    """
    path: list[int] = []
    for move in moves:
        # Else a rollback whose target's own move is missing, e.g. as an odd row: it counts as a promotion.
        if move.rolled_back and move.now in path[:-1]:
            while path[-1] != move.now:
                path.pop()
        else:
            path.append(move.now)
    return path


def number_of(db: Connection, name: str, alias: str) -> int | None:
    """Version number of the alias; None where there is no such alias; OddRow where its row is odd."""
    table = tables.alias
    row = db.execute(select(table).where(table.c.name == name, table.c.alias == alias)).first()
    if row is None:
        return None
    rows.require(table, row)
    return int(row.number)


def require_at(db: Connection, name: str, alias: str, expect: int | None) -> int | None:
    """Version number of the alias, if it is the expected one; otherwise AliasMoved."""
    number = number_of(db, name, alias)
    require_expected(number, name, alias, expect)
    return number


def require_expected(number: int | None, name: str, alias: str, expect: int | None) -> None:
    """Raise AliasMoved if the alias is not at the expected version; None stands for no alias."""
    if number != expect:
        actual, expected = (f"version {n}" if n else "no version" for n in (number, expect))
        raise AliasMoved(f"{name}@{alias} is at {actual}, not {expected}; check it and retry")


def move_or_refuse(db: Connection, name: str, alias: str, number: int, judgement: Judgement) -> None:
    """Move the alias if its policy allows it; otherwise record the refusal."""
    was = number_of(db, name, alias)
    if judgement.allowed:
        _point_alias(db, name, alias, number)
        detail = {"alias": alias, "was": was, "now": number, **judgement.detail()}
        log.record(db, name, "alias_moved", detail)
    else:
        detail = {"alias": alias, "at": was, "number": number, **judgement.detail()}
        log.record(db, name, "refused", detail)


def refusal(judgement: Judgement, name: str, alias: str, number: int, at: int | None) -> PolicyRefused:
    """The error for a refused move, with the violated rules and the remedy; `at` is the alias's version."""
    stays = f"stays at version {at}" if at else "is not created"
    headline = f"{name}@{alias} {stays}: version {number} violates its policy"
    error = PolicyRefused("\n".join([headline, *(f"  {violation}" for violation in judgement.broken)]))
    waivable = [violation.rule for violation in judgement.broken if violation.rule in WAIVABLE]
    if waivable:
        error.add_note(
            "fix the version, or waive the rule: "
            f"enginery registry waive {name}:{number} {alias} {waivable[0]} --reason WHY --for 7d"
        )
    return error


def roll_back(db: Connection, name: str, alias: str, path: Sequence[int], to: int | None) -> tuple[int, int]:
    """Point the alias at its previous version, or at `to` if it was there before; return both numbers.

    Versions whose files gc removed are skipped; NotFound where none is left.
    """
    was = number_of(db, name, alias)
    if was is None:
        raise NotFound(f"{name} has no alias @{alias}; `enginery registry aliases {name}` lists those it has")
    table = tables.version
    collected = set(
        db.scalars(select(table.c.number).where(table.c.name == name, table.c.collected_at.is_not(None)))
    )
    # An alias may have been promoted to its present version twice; that is no step back.
    back = [number for number in path[:-1] if number != was and number not in collected]
    if not back or (to is not None and to not in back):
        reachable = ", ".join(map(str, dict.fromkeys(back))) or "no other"
        wish = "an earlier version" if to is None else f"version {to}"
        raise NotFound(f"{name}@{alias} cannot go back to {wish}; before version {was} it was at {reachable}")
    target = back[-1] if to is None else to
    _point_alias(db, name, alias, target)
    return was, target


def _point_alias(db: Connection, name: str, alias: str, number: int) -> None:
    table = tables.alias
    values = {"number": number, "moved_at": log.moment(db).isoformat(), "moved_by": whoami()}
    row = seals.sealed(table, {"name": name, "alias": alias, **values})
    this_alias = (table.c.name == name) & (table.c.alias == alias)
    # The caller holds the name's turn, so nobody inserts the row in between.
    if db.execute(update(table).where(this_alias).values(**row)).rowcount == 0:
        # Only a new alias can differ from an existing one by case.
        check_apart("alias", alias, db.scalars(select(table.c.alias).where(table.c.name == name)))
        db.execute(insert(table).values(**row))
