"""What gc reads from and writes to the registry: versions, their aliases and pulls, and collections.

Functions with a `Connection` run within the caller's transaction.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, insert, select, update

from artifacts.address import address
from artifacts.registry import aliases, log, rows, shapes, tables
from artifacts.registry.database import Database

RESTORE = "restore the registry from a backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedVersion:
    """A version with everything that decides whether gc keeps it."""

    name: str
    number: int
    engine_key: str
    lineage: tuple[str, ...]
    """Keys of every artifact that it was built from or evaluated by."""
    published_at: datetime
    manifest_digest: str | None = None
    """Digest of its content; None where it was not recorded."""
    aliases: tuple[str, ...] = ()
    """Aliases that point at it."""
    formerly: tuple[str, ...] = ()
    """Aliases whose rollback leads to it."""
    pulled_at: datetime | None = None
    """Time of its latest pull."""
    collected: bool = False
    """Whether gc removed its files."""
    unsure: tuple[str, ...] = ()
    """Odd rows that may refer to it."""

    @property
    def reference(self) -> str:
        """`NAME:NUMBER`."""
        return f"{self.name}:{self.number}"

    @property
    def address(self) -> str:
        """Address of its engine in stores."""
        return address(self.engine_key, self.manifest_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """A version whose row is odd or missing: gc keeps the artifacts it names, or all if they are unknown."""

    what: str
    """The row and its problem."""
    keys: tuple[str, ...] | None
    """Keys of the artifacts that it names; None where they are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """All versions of a registry, as gc needs them."""

    versions: tuple[RetainedVersion, ...]
    """Oldest of each name first."""
    unclear: tuple[Unclear, ...]

    @property
    def keys(self) -> tuple[str, ...] | None:
        """Keys that versions with odd rows name; None where those of one are unknown."""
        # Any artifact may then be the one, so nothing may be removed.
        if any(row.keys is None for row in self.unclear):
            return None
        return tuple(dict.fromkeys(key for row in self.unclear for key in row.keys or ()))


def read_retention(db: Connection) -> Retention:
    """Every version with the odd rows that may refer to it; those with odd or missing rows are unclear."""
    table, odd_rows = tables.version, _Odd()
    columns = ("name", "number", "engine_key", "manifest_digest", "lineage", "published_at", "collected_at")
    query = select(*(table.c[name] for name in columns)).order_by(table.c.name, table.c.number)
    result = db.execute(query).all()
    valid, unclear = _split_odd(result)
    aliases_of = _aliases(db, odd_rows)
    missing = _missing(db, {(row.name, row.number) for row in result}, aliases_of)
    pulled = {(row.name, row.number): _time(row.last_at) for row in odd_rows.without(tables.pulled, db)}
    rollback_aliases = _rollback_aliases(
        db, {(row.name, row.number) for row in valid if row.collected_at is not None}, odd_rows
    )
    versions = tuple(
        RetainedVersion(
            name=row.name,
            number=row.number,
            engine_key=row.engine_key,
            manifest_digest=row.manifest_digest,
            lineage=tuple(row.lineage.values()),
            published_at=_time(row.published_at),
            aliases=tuple(aliases_of[row.name, row.number]),
            formerly=tuple(rollback_aliases[row.name, row.number]),
            pulled_at=pulled.get((row.name, row.number)),
            collected=row.collected_at is not None,
            unsure=odd_rows.of(row.name, row.number),
        )
        for row in valid
    )
    return Retention(versions=versions, unclear=(*unclear, *missing))


MOST_MISSING = 1000
"""Most missing versions of a name that are listed; beyond it, the name's last number is taken as odd."""


def _missing(
    db: Connection, present: Collection[tuple[str, int]], aliased: Iterable[tuple[str, int]]
) -> Iterator[Unclear]:
    """Versions without a row whose publication an event, an alias or a gap in the numbers proves."""
    key_of = _published(db)
    absent = dict.fromkeys([*key_of, *aliased])
    for row in db.execute(select(tables.series.c.name, tables.series.c.last)):
        if rows.row_problem(tables.series, row._asdict()) is None:
            # Lazily: a damaged `last` may be any number.
            between = ((row.name, number) for number in range(1, row.last + 1))
            missing = list(
                islice((version for version in between if version not in present), MOST_MISSING + 1)
            )
            if len(missing) > MOST_MISSING:
                yield Unclear(what=f"{row.name}: more than {MOST_MISSING:,} versions are missing", keys=None)
            absent |= dict.fromkeys(missing)
    for name, number in absent:
        if (name, number) not in present:
            key = key_of.get((name, number))
            consequence = (
                "its engine is kept" if key else "all artifacts are kept, since no event tells its own"
            )
            text = f"{name}:{number} is missing in the registry, and {consequence}; {RESTORE}"
            yield Unclear(what=text, keys=(key,) if key else None)


def _published(db: Connection) -> dict[tuple[str, int], str | None]:
    """Version with an event of its publication -> key of its engine, None where the key is malformed."""
    columns = (tables.log.c.name, tables.log.c.kind, tables.log.c.detail)
    query = select(*columns).where(tables.log.c.kind == "published").order_by(tables.log.c.seq)
    valid = (row for row in db.execute(query) if rows.row_problem(tables.log, row._asdict()) is None)
    return {
        (row.name, row.detail["number"]): _key(row.detail.get("engine_key"))
        for row in valid
        if row.detail["number"]
    }


def _key(value: object) -> str | None:
    return value if isinstance(value, str) and shapes.a_key(value) is None else None


def _split_odd(result: Iterable[Row[Any]]) -> tuple[list[Row[Any]], tuple[Unclear, ...]]:
    valid, unclear = [], []
    for row in result:
        problem = rows.row_problem(tables.version, row._asdict())
        if problem is None:
            valid.append(row)
            continue
        readable = (
            rows.row_problem(tables.version, {"engine_key": row.engine_key, "lineage": row.lineage}) is None
        )
        keys = (row.engine_key, *row.lineage.values()) if readable else None
        unclear.append(Unclear(what=f"{rows.row_name(tables.version, row._asdict())}: {problem}", keys=keys))
    return valid, tuple(unclear)


class _Odd:
    """Odd rows of the tables that refer to versions, and the versions that each may refer to."""

    def __init__(self) -> None:
        self._notes: list[tuple[object, object, str]] = []

    def note(self, table: Table, row: Row[Any], problem: str) -> None:
        """Add an odd row: it may refer to the version it names, to any of its name, or to any version."""
        values = row._asdict()
        name, number = (
            None
            if column not in values or rows.row_problem(table, {column: values[column]})
            else values[column]
            for column in ("name", "number")
        )
        # The name alone counts for the others.
        number = number if table is tables.pulled else None  # an alias's number may be the damaged value
        self._notes.append((name, number, f"{rows.row_name(table, values)}: {problem}"))

    def without(self, table: Table, db: Connection, query: Select[Any] | None = None) -> list[Row[Any]]:
        """The valid rows of a table; notes the odd ones."""
        valid = []
        for row in db.execute(select(table) if query is None else query):
            problem = rows.row_problem(table, row._asdict())
            if problem is None:
                valid.append(row)
            else:
                self.note(table, row, problem)
        return valid

    def of(self, name: str, number: int) -> tuple[str, ...]:
        """The odd rows that may refer to a version."""
        scopes = ((None, None), (name, None), (name, number), (None, number))
        return tuple(text for of_name, of_number, text in self._notes if (of_name, of_number) in scopes)


def _aliases(db: Connection, odd_rows: _Odd) -> defaultdict[tuple[str, int], list[str]]:
    """Version -> aliases that point at it."""
    aliases_of: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for row in odd_rows.without(tables.alias, db, select(tables.alias).order_by(tables.alias.c.alias)):
        aliases_of[row.name, row.number].append(row.alias)
    return aliases_of


def _rollback_aliases(
    db: Connection, collected: Collection[tuple[str, int]], odd_rows: _Odd
) -> defaultdict[tuple[str, int], list[str]]:
    """Version -> aliases whose rollback leads to it; rollbacks skip collected versions."""
    moves: defaultdict[tuple[str, str], list[aliases.Move]] = defaultdict(list)
    for row in reversed(odd_rows.without(tables.log, db, log.newest_first(kinds=log.MOVES))):
        move = aliases.move_of(log.event(row))
        moves[move.name, move.alias].append(move)
    aliases_of: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for (name, alias), alias_moves in moves.items():
        path = aliases.path_of(alias_moves)
        # The last one that still has its files: a rollback goes there.
        back = [number for number in path[:-1] if number != path[-1] and (name, number) not in collected]
        if back:
            aliases_of[name, back[-1]].append(alias)
    return aliases_of


@contextmanager
def deciding(database: Database) -> Iterator[Connection]:
    """A transaction during which no other one publishes or moves an alias of an existing name."""
    with database.writing() as db:
        # Locks the row of every name in PostgreSQL; SQLite ignores it, since its writers are serialized.
        db.execute(select(tables.series.c.name).order_by(tables.series.c.name).with_for_update()).all()
        yield db


def collect(db: Connection, versions: Iterable[RetainedVersion]) -> None:
    """Record that gc removes the files of these versions; versions already recorded are unchanged."""
    table, now = tables.version, log.moment(db).isoformat()
    for version in versions:
        this_version = (table.c.name == version.name) & (table.c.number == version.number)
        # The condition makes the event appear once, even if two sweeps plan the same version.
        marked = db.execute(
            update(table).where(this_version, table.c.collected_at.is_(None)).values(collected_at=now)
        )
        if marked.rowcount:
            detail = {"number": version.number, "engine_key": version.engine_key}
            log.record(db, version.name, "collected", detail)


def restore(db: Connection, name: str, number: int) -> None:
    """Record that the files of a version exist again: it was built and published once more."""
    table = tables.version
    this_version = (table.c.name == name) & (table.c.number == number)
    db.execute(update(table).where(this_version).values(collected_at=None))


def collected_message(reference: str, at: datetime) -> str:
    """The message for a collected version, with the remedy."""
    return (
        f"{reference}: gc removed its files on {at:%Y-%m-%d}; build its recipe again: a bit-identical engine"
        " restores this version, any other becomes a new version"
    )


def record_pull(database: Database, name: str, number: int) -> None:
    """Record that a version was pulled now; gc keeps it for a while."""
    table = tables.pulled
    with database.writing() as db:
        now = log.moment(db).isoformat()
        this_version = (table.c.name == name) & (table.c.number == number)
        # The lock of the name comes first, as in every other transaction on a name, so that PostgreSQL
        # transactions take their locks in one order and cannot deadlock.
        series = tables.series
        db.execute(update(series).where(series.c.name == name).values(last=series.c.last))
        result = db.execute(update(table).where(this_version).values(last_at=now, times=table.c.times + 1))
        if result.rowcount == 0:
            row = {"name": name, "number": number, "last_at": now, "times": 1}
            db.execute(insert(table).values(**rows.check_row(table, row)))


@dataclass(frozen=True, slots=True)
class Names:
    """The registry that decides what gc keeps."""

    database: Database
    inside: bool
    """Whether it is the store's own registry, so that it cannot belong to another store."""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
