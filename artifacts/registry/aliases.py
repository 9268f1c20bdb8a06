"""Aliases: where they point, how they move, and where they have been."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from artifacts.actor import whoami
from artifacts.errors import AliasMoved, NotFound, PolicyRefused
from artifacts.registry import log, rows, seals, tables
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
    waived: tuple[dict[str, Any], ...] = ()
    """Rules that the version did not meet then and did not need to."""

    def as_dict(self) -> dict[str, Any]:
        """The move as JSON values."""
        return {**asdict(self), "at": self.at.isoformat(), "waived": list(self.waived)}


def move_of(event: Event) -> Move:
    """The move that an event of a kind of `log.MOVES` tells of."""
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
    """Versions that an alias was promoted to and not rolled back from, oldest first; the last is the present.

    A rollback goes back along the path, so that a second one goes further back and not to what was left.
    """
    path: list[int] = []
    for move in moves:
        if move.rolled_back and move.now in path[:-1]:
            while path[-1] != move.now:
                path.pop()
        else:
            path.append(move.now)
    return path


def number_of(db: Connection, name: str, alias: str) -> int | None:
    """Where the alias points; None where there is no such alias, an OddRow where its row is odd."""
    table = tables.alias
    row = db.execute(select(table).where(table.c.name == name, table.c.alias == alias)).first()
    if row is None:
        return None
    rows.require(table, row)
    return int(row.number)


def require_at(db: Connection, name: str, alias: str, expect: int | None) -> int | None:
    """Where the alias points, if it is where it is expected; otherwise AliasMoved."""
    found = number_of(db, name, alias)
    require_found(found, name, alias, expect)
    return found


def require_found(found: int | None, name: str, alias: str, expect: int | None) -> None:
    """An AliasMoved unless the version that the alias was found at is the expected one; None: no alias."""
    if found != expect:
        at, wanted = (f"version {n}" if n else "no version" for n in (found, expect))
        raise AliasMoved(f"{name}@{alias} is at {at}, not {wanted}; look again and retry")


def settle(db: Connection, name: str, alias: str, number: int, judgement: Judgement) -> None:
    """Moves the alias where the policy allows it; else records the refusal and leaves the alias alone."""
    was = number_of(db, name, alias)
    if judgement.allowed:
        _put(db, name, alias, number)
        detail = {"alias": alias, "was": was, "now": number, **judgement.detail()}
        log.record(db, name, "alias_moved", detail)
    else:
        detail = {"alias": alias, "at": was, "number": number, **judgement.detail()}
        log.record(db, name, "refused", detail)


def refusal(judgement: Judgement, name: str, alias: str, number: int, at: int | None) -> PolicyRefused:
    """A refusal in words, with what to do about it; `at` is where the alias stays."""
    stays = f"stays at version {at}" if at else "is not made"
    what = f"{name}@{alias} {stays}: version {number} is not what its policy asks"
    refused = PolicyRefused("\n".join([what, *(f"  {one}" for one in judgement.broken)]))
    may = [one.rule for one in judgement.broken if one.rule in WAIVABLE]
    if may:
        refused.add_note(
            "cure it, or let somebody answer for it: "
            f"enginery registry waive {name}:{number} {alias} {may[0]} --reason WHY --for 7d"
        )
    return refused


def roll_back(db: Connection, name: str, alias: str, path: Sequence[int], to: int | None) -> tuple[int, int]:
    """Points the alias at the version before, or at `to` where it has been; returns both numbers.

    A version whose files gc took is passed over; with nothing to go back to, a NotFound.
    """
    was = number_of(db, name, alias)
    if was is None:
        raise NotFound(f"{name} has no alias @{alias}; `enginery registry aliases {name}` lists those it has")
    table = tables.version
    gone = set(
        db.scalars(select(table.c.number).where(table.c.name == name, table.c.collected_at.is_not(None)))
    )
    back = [number for number in path[:-1] if number != was and number not in gone]
    if not back or (to is not None and to not in back):
        had = ", ".join(map(str, dict.fromkeys(back))) or "no other"
        wanted = "an earlier version" if to is None else f"version {to}"
        raise NotFound(
            f"{name}@{alias} cannot go back to {wanted}; on its way to version {was} it was at {had}"
        )
    target = back[-1] if to is None else to
    _put(db, name, alias, target)
    return was, target


def _put(db: Connection, name: str, alias: str, number: int) -> None:
    table = tables.alias
    moved = {"number": number, "moved_at": log.moment(db).isoformat(), "moved_by": whoami()}
    row = seals.sealed(table, {"name": name, "alias": alias, **moved})
    here = (table.c.name == name) & (table.c.alias == alias)
    if db.execute(update(table).where(here).values(**row)).rowcount == 0:
        check_apart("alias", alias, db.scalars(select(table.c.alias).where(table.c.name == name)))
        db.execute(insert(table).values(**row))
