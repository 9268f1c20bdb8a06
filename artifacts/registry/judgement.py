"""Judges a version by an alias's policy: reads what the rules need in one transaction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, select

from artifacts.errors import NotFound, PolicyInvalid
from artifacts.registry import columns, log, rows, tables, waivers
from artifacts.registry.event_details import JudgementDetail
from artifacts.registry.policy import WAIVABLE, Broken, Policy, Subject, broken, parse_policy
from artifacts.registry.waivers import Waiver

Verified = Callable[[str, str, str], bool]
"""Whether a bundle is a good signature of a manifest's digest by a public key (PEM)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The result of applying a policy to a version."""

    broken: tuple[Broken, ...]
    """Violated rules without a waiver."""
    waived: tuple[tuple[Broken, Waiver], ...]
    """Violated rules with an open waiver."""

    @property
    def allowed(self) -> bool:
        """Whether the alias may point at it."""
        return not self.broken

    def detail(self) -> JudgementDetail:
        """Its fields in the log; empty where no rule is violated."""
        fields: JudgementDetail = {}
        if self.broken:
            fields["broken"] = [{"rule": violation.rule, "why": violation.why} for violation in self.broken]
        if self.waived:
            fields["waived"] = [
                {
                    "rule": violation.rule,
                    "why": violation.why,
                    "waiver": waiver.id,
                    "reason": waiver.reason,
                    "until": str(waiver.until),
                }
                for violation, waiver in self.waived
            ]
        return fields


def policy_of(db: Connection, alias: str) -> Policy:
    """The alias's policy; the default policy requires the verdict PASS."""
    rules = db.scalar(select(tables.policy.c.rules).where(tables.policy.c.alias == alias))
    if rules is None:
        return Policy()
    try:
        return parse_rules(rules)
    except PolicyInvalid as exc:  # set by a later version of enginery
        raise PolicyInvalid(f"the policy of @{alias} cannot be applied by this version: {exc}") from None


def parse_rules(rules: Any) -> Policy:
    """The policy that a row holds; a PolicyInvalid for anything else."""
    # The column can hold any JSON, and the parser expects an object.
    problem = columns.CHECKS["policy"]["rules"](rules)
    if problem is not None:
        raise PolicyInvalid(f"its rules: it {problem}")
    return parse_policy(cast("Mapping[str, Any]", rules))


def judge(db: Connection, name: str, number: int, alias: str, verified: Verified) -> Judgement:
    """The judgement of the alias's policy on the version, with open waivers applied."""
    require_version(db, name, number)
    now, policy = log.moment(db), policy_of(db, alias)
    granted = db.execute(waivers.of(name, number)).all()
    # Only waivers and ages depend on the clock, so other policies save this query.
    newest = log.latest(db) if granted or policy.max_age_days is not None else None
    valid = rows.read_values(granted, waivers.waiver)
    open_now = [item for item in valid if item.is_open(now if newest is None else max(now, newest.at))]
    # An odd waiver waives no rule, but it counts as open: its end cannot be read.
    num_open = len(open_now) + len(granted) - len(valid)
    subject = _subject(db, (name, number), verified, now=now, newest=newest, open_waivers=num_open)
    waiver_of = {item.rule: item for item in open_now if item.alias == alias and item.rule in WAIVABLE}
    violations = broken(policy, subject)
    return Judgement(
        broken=tuple(item for item in violations if item.rule not in waiver_of),
        waived=tuple((item, waiver_of[item.rule]) for item in violations if item.rule in waiver_of),
    )


def require_version(db: Connection, name: str, number: int) -> None:
    """Raise NotFound for a version that does not exist."""
    table = tables.version
    if db.scalar(select(table.c.number).where(table.c.name == name, table.c.number == number)) is None:
        raise NotFound(f"no version {name}:{number}; `enginery ls` lists those there are")


def _subject(
    db: Connection,
    version: tuple[str, int],
    verified: Verified,
    *,
    now: datetime,
    newest: log.Latest | None,
    open_waivers: int,
) -> Subject:
    table, metric = tables.version, tables.metric
    columns = select(table, tables.facts.c.facts)
    # Outer: a version without its facts must be reported as odd, not as missing.
    joined = columns.outerjoin(tables.facts, tables.facts.c.id == table.c.facts_id)
    row = db.execute(joined.where((table.c.name == version[0]) & (table.c.number == version[1]))).one()
    rows.require_version(row)
    this_version = (metric.c.name == version[0]) & (metric.c.number == version[1])
    return Subject(
        at=now,
        newest=None if newest is None else newest.at,
        newest_description="" if newest is None else newest.description,
        verdict=row.verdict,
        published_at=datetime.fromisoformat(row.published_at),
        collected_at=rows.moment(row.collected_at),
        facts=row.facts,
        metrics={
            metric_row.metric: metric_row.value
            for metric_row in rows.select_rows(db, metric, select(metric).where(this_version))
        },
        signed=_signatures(db, row.manifest_digest, verified),
        open_waivers=open_waivers,
    )


def _signatures(db: Connection, manifest_digest: str | None, verified: Verified) -> Callable[[str], bool]:
    """Returns a check for a good signature by a public key; versions of schema 1 have no signatures."""
    if manifest_digest is None:
        return lambda public_key: False
    table = tables.signature
    query = select(table).where(table.c.manifest_digest == manifest_digest)
    bundles = [row.bundle for row in rows.select_rows(db, table, query)]
    # Called only for policies with `signed_by`: checking signatures costs time.
    return lambda public_key: any(verified(bundle, manifest_digest, public_key) for bundle in bundles)
