"""Audits a registry: reads every row and finds odd, changed, missing and dangling ones."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, ForeignKeyConstraint, Row, Table, and_, inspect, select

from artifacts import digest
from artifacts.address import address
from artifacts.errors import ArtifactCorrupt, NotFound, PolicyInvalid, StoreUnusable
from artifacts.registry import judgement, publishing, rows, seals, tables
from artifacts.registry.database import Database
from artifacts.store.local import LocalStore

AT_ONCE = 500
"""Rows that are in memory at a time."""

MOST_SAID = 20
"""Messages shown of each check: after one bad page, SQLite's own check reports thousands."""

RESTORE = "restore the registry from a backup; no command can recover the lost rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem in a registry, and its place."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The result of an audit: rows read, and findings."""

    rows: int
    versions: int
    findings: tuple[Finding, ...]
    unreadable: bool = False
    """Whether reading ended early."""


def audit(database: Database, store: LocalStore | None = None) -> Audit:
    """Read every row and check its shape, its seal and its references; for versions also their engines.

    A registry that cannot be read is a finding too. Nothing is changed. Engines are looked up in the store
    if the registry is bound to it.
    """
    reading, bound_here, unreadable = _Audit(), False, False
    try:
        if not database.exists():
            raise StoreUnusable(f"registry {database.url} is not there, or has no tables; {RESTORE}")
        with database.reading() as db:
            reading.database(db, database.kind)
            # Metrics are read before versions, because the seal of a version covers its metrics.
            for table in sorted(
                tables.METADATA.sorted_tables, key=lambda candidate: candidate is not tables.metric
            ):
                reading.table(db, table)
            reading.series()
            bound_here = store is not None and reading.is_of(db, store)
    except StoreUnusable as exc:
        reading.note("registry", str(exc))
        unreadable = True
    if bound_here and store is not None:
        # After the transaction, since reading a store may take long.
        reading.engines(store)
    return Audit(
        rows=reading.rows,
        versions=len(reading.versions),
        findings=tuple(reading.findings),
        unreadable=unreadable,
    )


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    number: int
    engine_key: str
    manifest_digest: str | None
    collected: bool


class _Audit:
    """The state of one audit."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.versions: list[_Version] = []
        self.rows = 0
        self._metrics: defaultdict[tuple[object, object], list[tables.Values]] = defaultdict(list)
        self._numbers: defaultdict[object, set[object]] = defaultdict(set)
        self._last: dict[object, object] = {}
        self._published: set[tuple[object, object]] = set()
        self._before: str | None = None

    def note(self, place: str, problem: str) -> None:
        """Adds a finding."""
        self.findings.append(Finding(where=place, what=problem))

    def database(self, db: Connection, kind: str) -> None:
        """Run the database's own check, and find rows that reference missing rows."""
        present = set(inspect(db).get_table_names())
        missing = [table.name for table in tables.METADATA.sorted_tables if table.name not in present]
        if missing:
            raise StoreUnusable(f"the registry has no table {missing[0]!r}; {RESTORE}")
        if kind == "sqlite":
            messages = db.exec_driver_sql(f"PRAGMA integrity_check({MOST_SAID})").scalars().all()
            for message in messages if messages != ["ok"] else ():
                self.note("registry", f"SQLite finds it damaged: {rows.printable(message)}; {RESTORE}")
        for table in tables.METADATA.sorted_tables:
            for key in sorted(table.foreign_key_constraints, key=lambda constraint: str(constraint.name)):
                self._dangling(db, table, key)

    def _dangling(self, db: Connection, table: Table, key: ForeignKeyConstraint) -> None:
        target = key.referred_table
        pairs = [(element.parent, element.column) for element in key.elements]
        joined = table.outerjoin(target, and_(*(child == parent for child, parent in pairs)))
        # PostgreSQL enforces these references; SQLite does so only for programs that switch it on.
        orphans = select(table).select_from(joined).where(pairs[0][1].is_(None), pairs[0][0].is_not(None))
        for row in db.execute(orphans.limit(MOST_SAID)):
            self.note(
                rows.row_name(table, row._asdict()), f"points at a row of {target.name} that is not there"
            )

    def table(self, db: Connection, table: Table) -> None:
        """Check the values and the seal of every row of a table."""
        # Streamed: the recipes of a large registry do not fit into memory.
        query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=AT_ONCE)
        for row in db.execute(query):
            self.rows += 1
            problem = rows.row_problem(table, row._asdict()) or self._further_problem(table, row)
            if problem is not None:
                self.note(rows.row_name(table, row._asdict()), problem)
            self._remember(table, row)

    def _further_problem(self, table: Table, row: Row[Any]) -> str | None:
        if table is tables.facts and digest.of_json(row.facts) != row.id:
            return "do not match their digest: they were changed after they were written"
        if table is tables.policy:
            try:
                judgement.parse_rules(row.rules)
            except PolicyInvalid as exc:
                return str(exc)
        return self._unsealed(table, row._asdict()) if table in seals.SEALED else None

    def _unsealed(self, table: Table, row: tables.Values) -> str | None:
        """The problem of a well-formed row's seal; None where it matches."""
        if row["seal"] is None:
            return "has no seal: another program wrote it"
        context: tuple[Any, ...] = ()
        causes = ""
        if table is tables.version:
            context = (seals.of_metrics(self._metrics[row["name"], row["number"]]),)
            causes = ", or one of its metrics was changed, added or removed"
        elif table is tables.log:
            context, causes = (self._before,), ", or the event before it was removed"
        try:
            matches = seals.seal(table.name, seals.covered(table, row), *context) == row["seal"]
        except (TypeError, ValueError):  # a metric that is no number
            matches = False
        return None if matches else f"does not match its seal: it was changed after it was written{causes}"

    def _remember(self, table: Table, row: Row[Any]) -> None:
        if table is tables.metric:
            self._metrics[row.name, row.number].append(row._asdict())
        elif table is tables.series:
            self._last[row.name] = row.last
        elif table is tables.log:
            # Rows come in the order of their numbers, which are the primary key.
            self._before = row.seal
            if row.kind == "published" and isinstance(row.detail, dict):
                self._published.add((row.name, str(row.detail.get("number"))))
        elif table is tables.version:
            # Memory stays bounded by the metrics, which are read first, and shrinks with each version.
            self._metrics.pop((row.name, row.number), None)
            self._numbers[row.name].add(row.number)
            if rows.row_problem(table, row._asdict()) is None:
                collected = row.collected_at is not None
                self.versions.append(
                    _Version(row.name, row.number, row.engine_key, row.manifest_digest, collected)
                )

    def series(self) -> None:
        """Find missing versions: numbers run from 1 to the last of the name, each with an event."""
        for name, last in self._last.items():
            numbers = self._numbers[name]
            if not isinstance(last, int):
                continue  # already reported where the row was read
            missing = (number for number in range(1, last + 1) if number not in numbers)
            for number in islice(missing, MOST_SAID):
                self.note(f"{rows.printable(name)}:{number}", f"is missing: {last} versions were published")
            # An odd row may have any value as its number.
            beyond = sorted(version for version in numbers if isinstance(version, int) and version > last)
            for number in beyond[:MOST_SAID]:
                self.note(f"{rows.printable(name)}:{number}", f"exists, but the last number was {last}")
        for version in self.versions:
            if (version.name, str(version.number)) not in self._published:
                self.note(f"{version.name}:{version.number}", "has no event of its publication")

    def is_of(self, db: Connection, store: LocalStore) -> bool:
        """Whether the registry is bound to this store or unbound; reports another binding."""
        try:
            binding, identity = publishing.bound_to(db), store.identity()
        except ArtifactCorrupt:
            return False
        if binding is not None and identity is not None and binding.id != identity.id:
            self.note(
                "registry",
                f"names artifacts of store {binding.id} (first at {binding.url}), and this is store"
                f" {identity.id}; restore this store's own from a backup",
            )
        return binding is None or (identity is not None and binding.id == identity.id)

    def engines(self, store: LocalStore) -> None:
        """Find published engines that the store lacks or has only with other contents."""
        for version in self.versions:
            if version.collected:
                continue
            try:
                store.manifest(address(version.engine_key, version.manifest_digest))
            except NotFound:
                other_build = " (it has another build of it)" if store.contents(version.engine_key) else ""
                problem = (
                    f"its engine {version.engine_key} is not in the store{other_build};"
                    " build its recipe again"
                )
                self.note(f"{version.name}:{version.number}", problem)
            except ArtifactCorrupt:
                continue  # damaged files are reported by the store's own survey
