"""Names, versions, aliases and their history, in one database; every change is one transaction."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from artifacts.actor import whoami
from artifacts.errors import KeyUnusable, PolicyInvalid, PolicyRefused
from artifacts.finding.listed import Listed, Named
from artifacts.finding.match import Match
from artifacts.registry import aliases, log, publishing, rows, tables
from artifacts.registry.aliases import Move
from artifacts.registry.catalog import Catalog
from artifacts.registry.database import Database, open_database
from artifacts.registry.event_details import JudgementDetail
from artifacts.registry.governance import Governance, Standing
from artifacts.registry.judgement import Judgement, Verified, judge, require_version
from artifacts.registry.names import check_alias
from artifacts.registry.policy import Policy, parse_policy
from artifacts.registry.publishing import Binding
from artifacts.registry.remarks import Remarks
from artifacts.registry.waivers import Request, Waiver
from artifacts.trust import signing
from artifacts.version import Event, Metric, Publication, VersionRecord

__all__ = [
    "Binding",
    "Event",
    "Judgement",
    "Match",
    "Metric",
    "Move",
    "Policy",
    "Publication",
    "Registry",
    "Remarks",
    "Request",
    "Standing",
    "VersionRecord",
    "Waiver",
    "open_registry",
    "parse_policy",
    "whoami",
]


class Registry(Governance):
    """One registry. A missing registry reads as empty; the first write creates it."""

    def __init__(self, database: Database, verified: Verified) -> None:
        super().__init__(database, verified)
        self._catalog = Catalog(database)

    @property
    def database(self) -> Database:
        """The database, for code that handles signatures and subscriptions."""
        return self._db

    def publish(self, publication: Publication, *, store: Binding | None = None) -> int:
        """Add a version and move its alias; return its number.

        Publishing the same content with the same basis of its verdict again returns the existing version,
        and moves its alias only if the alias never pointed there: a run can be repeated, also after a
        rollback. NotPublishable for a verdict other than PASS.
        PolicyRefused where the alias's policy refuses the version: the version is published, the alias stays,
        and publishing again applies the policy again. `store` holds the artifacts: the first one is bound to
        the registry for good, another one is a StoreMismatch.
        """
        publishing.check(publication)
        name, alias, judgement, alias_at = publication.name, publication.alias, None, None
        with self._db.writing() as db:
            if store is not None:
                publishing.bind(self._db, db, store)
            publishing.take_turn(db, name)
            number, new = publishing.find_or_add(db, publication)
            if alias is not None and (new or publishing.moves_alias(db, name, alias, number)):
                alias_at = aliases.number_of(db, name, alias)
                judgement = judge(db, name, number, alias, self._verified)
                aliases.move_or_refuse(db, name, alias, number, judgement)
        # Raised after the transaction: an exception inside it would take the publication and the record of
        # the refusal back.
        if judgement is not None and alias is not None and not judgement.allowed:
            error = aliases.refusal(judgement, name, alias, number, alias_at)
            error.add_note(f"{name}:{number} is published; nothing has to be built again")
            raise error
        return number

    def promote(self, name: str, alias: str, *, to: int, expect: int | None) -> None:
        """Point `alias` at version `to` if it is at `expect` (None: it does not exist); otherwise AliasMoved.

        PolicyRefused where the version violates the alias's policy; the log records the refusal.
        """
        check_alias(alias)
        self._require_published(name)
        with self._db.writing() as db:
            require_version(db, name, to)
            publishing.take_turn(db, name)
            current = aliases.require_at(db, name, alias, expect)
            judgement = judge(db, name, to, alias, self._verified)
            aliases.move_or_refuse(db, name, alias, to, judgement)
        if not judgement.allowed:
            raise aliases.refusal(judgement, name, alias, to, current)

    def rollback(self, name: str, alias: str, *, to: int | None = None, expect: int | None = None) -> Move:
        """Point `alias` at its previous version, or at `to` if it was there before; return the move.

        The policy is not applied: a version that was accepted before is better than the present one. The log
        records the rules that it violates. AliasMoved where the alias is not at a given `expect`.
        """
        self._require_published(name)
        with self._db.writing() as db:
            # Before `take_turn`, which would add a row for an unknown name.
            require_version(db, name, 1)
            publishing.take_turn(db, name)
            if expect is not None:
                aliases.require_at(db, name, alias, expect)
            # With an explicit target, an odd move cannot lead to the wrong version.
            moves = self._moves(db, name, alias, sure=to is None)
            was, now = aliases.roll_back(db, name, alias, aliases.path_of(moves), to)
            detail = {"alias": alias, "was": was, "now": now, **self._judgement_detail(db, name, now, alias)}
            log.record(db, name, "rolled_back", detail)
            # Read back inside the transaction: `log.record` has set the time and the author of the move.
            *_, last = self._moves(db, name, alias)
        return last

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return self._catalog.names()

    def models(self) -> list[str]:
        """Every source checkpoint of a version, sorted."""
        return self._catalog.models()

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound with similar names where there is none."""
        return self._catalog.versions(name)

    def every(self) -> Iterator[VersionRecord]:
        """Every version of every name, oldest of each first; odd rows are reported and left out."""
        return self._catalog.every()

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> number, sorted by alias."""
        table = tables.alias
        alias_rows = self._rows(select(table).where(table.c.name == name).order_by(table.c.alias))
        return {row.alias: row.number for row in rows.sound_rows(table, alias_rows)}

    def resolve(self, reference: str) -> VersionRecord:
        """The version of `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound."""
        return self._catalog.resolve(reference)

    def find(self, *, rank: str = "speed", limit: int | None = None, **criteria: Any) -> list[Match]:
        """The first `limit` matching versions, best first, then the others with the reasons against them.

        `artifacts.finding.match.CRITERIA` lists the criteria, `artifacts.finding.match.RANKS` the orders.
        """
        return self._catalog.find(rank=rank, limit=limit, **criteria)

    def listed(self, name: str | None = None, *, limit: int | None = None) -> tuple[list[Listed], int]:
        """The newest version of every name and aliased ones, or those of one name; and their number."""
        return self._catalog.listed(name, limit=limit)

    def remarks(self, versions: Collection[Named]) -> dict[Named, Remarks]:
        """Waivers and signatures of versions, given by name and number."""
        return self._catalog.remarks(versions)

    def rebuild_needed(self, name: str, number: int, reasons: Sequence[str]) -> None:
        """Log the reasons to build a version again, without those that were logged before."""
        self._require_published(name)
        with self._db.writing() as db:
            require_version(db, name, number)
            publishing.take_turn(db, name)
            events = rows.read_values(
                db.execute(log.newest_first(name, kinds=("rebuild_needed",))), log.event
            )
            known_reasons = {
                why for event in events if event.detail["number"] == number for why in event.detail["reasons"]
            }
            # Checked under the name's turn, so that two callers cannot both log the same reason.
            new = [reason for reason in dict.fromkeys(reasons) if reason not in known_reasons]
            if new:
                log.record(db, name, "rebuild_needed", {"number": number, "reasons": new})

    def events(self, name: str | None = None, *, newest: int | None = None) -> list[Event]:
        """Events of a name (None: of all names), oldest first; only the `newest` ones where given."""
        return rows.read_values(reversed(self._rows(log.newest_first(name).limit(newest))), log.event)

    def history(self, name: str, alias: str | None = None) -> list[Move]:
        """Every move of a name's aliases, or of one, oldest first."""
        events = rows.read_values(reversed(self._rows(log.newest_first(name, kinds=log.MOVES))), log.event)
        moves = map(aliases.move_of, events)
        return [move for move in moves if alias in (None, move.alias)]

    def bound(self) -> Binding | None:
        """The store that this registry is bound to; None before the first publication."""
        if not self._db.exists():
            return None
        with self._db.reading() as db:
            return publishing.bound_to(db)

    def counts(self) -> dict[str, int]:
        """Number of names, versions, aliases, events, policies and waivers."""
        if not self._db.exists():
            return {}
        table_of = {"names": tables.series, "versions": tables.version, "aliases": tables.alias}
        table_of |= {"policies": tables.policy, "waivers": tables.waiver, "events": tables.log}
        with self._db.reading() as db:
            return {
                name: int(db.scalar(select(func.count()).select_from(table)) or 0)
                for name, table in table_of.items()
            }

    def require_store(self, store: Binding) -> None:
        """Raise a StoreMismatch if this registry is bound to another store."""
        bound = self.bound()
        if bound is not None:
            publishing.require_bound(self._db, bound, store)

    def _judgement_detail(self, db: Connection, name: str, number: int, alias: str) -> JudgementDetail:
        """The policy's judgement for the log; a policy that cannot be applied does not stop a rollback."""
        try:
            return judge(db, name, number, alias, self._verified).detail()
        except (KeyUnusable, PolicyRefused, PolicyInvalid, rows.OddRow) as exc:
            return {"not_judged": str(exc)}

    def _moves(self, db: Connection, name: str, alias: str, *, sure: bool = False) -> list[Move]:
        """The alias's moves, oldest first; with `sure`, one odd row among them is an OddRow."""
        move_rows = reversed(db.execute(log.newest_first(name, kinds=log.MOVES)).all())
        try:
            # A left-out move would shift the path, so a rollback without a target must not guess.
            moves = map(log.event, move_rows) if sure else rows.read_values(move_rows, log.event)
            return [move for move in map(aliases.move_of, moves) if move.alias == alias]
        except rows.OddRow as exc:
            exc.add_note(f"the previous version of {name}@{alias} is uncertain; give one with --to VERSION")
            raise

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            return db.execute(query).all()


def open_registry(url_or_path: str | Path, verified: Verified = signing.verified) -> Registry:
    """The registry at a database URL or in an SQLite file; StoreUnusable for another schema version.

    `verified` checks signatures for the rule `signed_by`.
    """
    return Registry(open_database(url_or_path), verified)
