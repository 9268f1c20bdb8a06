"""Policies, waivers, and the judgement of aliased versions by them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from artifacts.actor import whoami
from artifacts.errors import NotFound, PolicyInvalid
from artifacts.registry import log, publishing, rows, seals, tables, waivers
from artifacts.registry.database import Database
from artifacts.registry.judgement import Judgement, Verified, judge, parse_rules, require_version
from artifacts.registry.names import check_alias
from artifacts.registry.policy import Broken, Policy
from artifacts.registry.rows import OddRow
from artifacts.registry.waivers import Request, Waiver


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An alias, its version, and the present judgement of its policy on it."""

    name: str
    alias: str
    number: int
    moved_at: datetime
    moved_by: str
    judgement: Judgement


class Governance:
    """The part of a registry that governs aliases."""

    def __init__(self, database: Database, verified: Verified) -> None:
        self._db = database
        self._verified = verified
        self.url = database.url
        """Its URL without secrets."""

    def judge(self, name: str, number: int, alias: str) -> Judgement:
        """The present judgement of the alias's policy on the version; changes nothing."""
        self._require_published(name)
        with self._db.reading() as db:
            return judge(db, name, number, alias, self._verified)

    def standings(self, name: str | None = None) -> list[Standing]:
        """Every alias of a name (None: of all names), sorted, with the present judgement on its version."""
        if not self._db.exists():
            return []
        table = tables.alias
        query = select(table).order_by(table.c.name, table.c.alias)
        with self._db.reading() as db:
            alias_rows = rows.select_rows(
                db, table, query if name is None else query.where(table.c.name == name)
            )
            return [
                Standing(
                    name=row.name,
                    alias=row.alias,
                    number=row.number,
                    moved_at=datetime.fromisoformat(row.moved_at),
                    moved_by=row.moved_by,
                    judgement=self._present_judgement(db, row.name, row.number, row.alias),
                )
                for row in alias_rows
            ]

    def _present_judgement(self, db: Connection, name: str, number: int, alias: str) -> Judgement:
        """The judgement; where it cannot be made, that is a violation of the rule `readable`."""
        try:
            return judge(db, name, number, alias, self._verified)
        # One odd row must not hide the standings of all other aliases.
        except (NotFound, OddRow, PolicyInvalid) as exc:
            return Judgement(broken=(Broken("readable", str(exc)),), waived=())

    def policies(self) -> dict[str, Policy]:
        """Alias -> its policy, sorted by alias; other aliases require only the verdict PASS."""
        if not self._db.exists():
            return {}
        with self._db.reading() as db:
            policy_rows = db.execute(select(tables.policy).order_by(tables.policy.c.alias))
            return dict(rows.read_values(policy_rows, _policy))

    def set_policy(self, alias: str, policy: Policy | None) -> None:
        """Set the policy of every alias with that name; None removes it."""
        check_alias(alias)
        rules = None if policy is None else policy.as_dict()
        with self._db.writing() as db:
            # A policy concerns all names, so no lock of a name covers it.
            self._db.take_turns(db)
            # Deleted and inserted, so that the new row gets a seal over all of its columns.
            db.execute(delete(tables.policy).where(tables.policy.c.alias == alias))
            if rules is not None:
                row = {
                    "alias": alias,
                    "rules": rules,
                    "set_at": log.moment(db).isoformat(),
                    "set_by": whoami(),
                }
                db.execute(insert(tables.policy).values(**seals.sealed(tables.policy, row)))
            log.record(db, "", "policy_set", {"alias": alias, "rules": rules})

    def waive(self, request: Request) -> Waiver:
        """Waive a rule of an alias's policy for one version until a moment, with a recorded reason."""
        check_alias(request.alias)
        self._require_published(request.name)
        with self._db.writing() as db:
            require_version(db, request.name, request.number)
            # A promotion that runs now is judged with this waiver or without it, never in between.
            publishing.take_turn(db, request.name)
            return waivers.grant(db, request)

    def end_waiver(self, number: int) -> Waiver:
        """End the open waiver with this id now; NotFound where it is not open."""
        if not self._db.exists():
            raise NotFound(f"no waiver {number} is open; nothing is published here yet")
        with self._db.writing() as db:
            return waivers.end(db, number)

    def waivers(self, name: str | None = None, *, ended: bool = False) -> list[Waiver]:
        """Open waivers of a name (None: of all names), oldest first; with `ended`, the ended ones too."""
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            now = log.known_moment(db)
            all_waivers = rows.read_values(db.execute(waivers.of(name)), waivers.waiver)
        return [waiver for waiver in all_waivers if ended or waiver.is_open(now)]

    def _require_published(self, name: str) -> None:
        """Raise NotFound for a missing registry, before a write would create an empty one."""
        if not self._db.exists():
            raise NotFound(f"no version of {name!r} in {self.url}; nothing is published here yet")


def _policy(row: Row[Any]) -> tuple[str, Policy]:
    rows.require(tables.policy, row)
    try:
        return row.alias, parse_rules(row.rules)
    except PolicyInvalid as exc:
        raise OddRow(f"the policy of @{row.alias}: {exc}") from None
