"""Queries for lists and searches: scalars and a few metrics of many versions, and each set of facts once."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, cast, func, select, true

from artifacts.finding.listed import FIGURES, NO_FIGURES, Listed, Named
from artifacts.finding.match import RANKS, Judge, Match
from artifacts.finding.needs import Facts
from artifacts.registry import rows, tables
from artifacts.registry.columns import MOST

VERSION, METRIC, ALIAS = tables.version.c, tables.metric.c, tables.alias.c

Line = Any
"""A row of `_versions`; how SQLAlchemy types one differs between its releases."""

LINE = (
    "name", "number", "engine_key", "verdict", "origin", "model", "facts_id", "collected_at", "published_at",
)  # fmt: skip
"""Columns of the version table that lists read."""

TRUE = true()

AT_ONCE = 400
"""Most versions that a query lists one by one; for more, it reads the whole table."""

Values = Mapping[str, Mapping[Named, float]]
"""Metric -> version -> value."""


def listed(db: Connection, name: str | None, limit: int | None) -> tuple[list[Listed], int]:
    """The newest version of every name and aliased ones, or the newest of one name; and their number."""
    query = _newest_or_aliased() if name is None else _versions().where(VERSION.name == name)
    order = (VERSION.name, VERSION.number) if name is None else (VERSION.number.desc(),)
    count = db.scalar(select(func.count()).select_from(query.subquery())) or 0
    result = db.execute(query.order_by(*order).limit(limit)).all()
    lines = list(rows.sound_tuples(tables.version, LINE, result))
    facts = _facts(db, lines)
    versions = _complete(db, _with_facts(lines, facts), facts)
    return sorted(versions, key=lambda version: (version.name, version.number)), count


def search(db: Connection, criteria: Mapping[str, Any], rank: str, limit: int | None) -> list[Match]:
    """The first `limit` matching versions, best first, then the dropped ones with their reasons.

    Facts are judged here, once per distinct set; the database then sorts and limits the versions that match,
    so that most of them are never read. Metrics are compared only for versions whose facts match.
    """
    judge, in_scope, slo = Judge(criteria), _is_of(criteria), criteria.get("slo", {})
    facts = _facts_of(db, in_scope)
    reasons_of = {key: judge.by_facts(values) for key, values in facts.items()}
    suitable = _without([key for key, reasons in reasons_of.items() if reasons], facts)
    if not slo:
        # Without an SLO, the database can judge the state too, and limit the list.
        suitable &= VERSION.collected_at.is_(None)
    aliases_of = _aliases(db)
    dropped = []
    for row in _read(
        db, _versions().where(in_scope, ~suitable), facts, unused=("engine_key", "published_at")
    ):
        version = _listed_version(row, facts, aliases_of, {})
        dropped.append(Match(version, reasons_of[row.facts_id] or judge.by_state(version)))
    if slo:
        values = _values(db, (RANKS[rank][0], *slo), _one_of(METRIC, in_scope))
        # An SLO compares several metrics of one version, and a version may fail by its state alone, so they
        # are judged here.
        every = _read(db, _versions().where(in_scope, suitable), facts)
        judged = [(row, judge.by_state(_listed_version(row, facts, aliases_of, values))) for row in every]
        first = _ranked([row for row, reasons in judged if not reasons], values, rank)[:limit]
        too_slow = [(row, reasons) for row, reasons in judged if reasons]
        dropped += [
            Match(_listed_version(row, facts, aliases_of, values), reasons) for row, reasons in too_slow
        ]
    else:
        first = _read(db, _best(in_scope & suitable, rank, db.dialect.name).limit(limit), facts)
    dropped.sort(key=lambda match: (len(match.reasons), match.record.name, -match.record.number))
    return [
        *(Match(version, ()) for version in _complete(db, first, facts, (*slo, RANKS[rank][0]))),
        *dropped,
    ]


def _read(
    db: Connection, query: Select[Any], facts: Collection[str], unused: Collection[str] = ()
) -> list[Line]:
    """Versions whose rows and facts are valid; the others are reported."""
    return _with_facts(rows.sound_tuples(tables.version, LINE, db.execute(query).all(), unused=unused), facts)


def _with_facts(lines: Iterable[Line], facts: Collection[str]) -> list[Line]:
    complete = []
    for row in lines:
        if row[6] in facts:
            complete.append(row)
        else:
            rows.report_odd(rows.missing_facts_message(row._asdict()))
    return complete


def _best(where: ColumnElement[bool], rank: str, dialect: str) -> Select[Any]:
    """Query for these versions in the order of a rank, the same as `_ranked`: unmeasured ones last."""
    metric, sign = RANKS[rank]
    same = (METRIC.name == VERSION.name) & (METRIC.number == VERSION.number) & (METRIC.metric == metric)
    # A server sorts by its locale; the order must be that of `_ranked`.
    name = VERSION.name.collate("C") if dialect == "postgresql" else VERSION.name  # by code points
    order = (METRIC.value.is_(None), METRIC.value * sign, name, VERSION.number.desc())
    return _versions().outerjoin(tables.metric, same).where(where).order_by(*order)


def _without(dropped: Collection[str], facts: Collection[str]) -> ColumnElement[bool]:
    """The condition for versions of all facts but the dropped ones; passes the shorter list of ids."""
    if len(dropped) <= len(facts) / 2:
        return VERSION.facts_id.not_in(dropped) if dropped else true()
    return VERSION.facts_id.in_(set(facts) - set(dropped))


def _ranked(rows: Iterable[Line], values: Values, rank: str) -> list[Line]:
    metric, sign = RANKS[rank]
    value_of = values.get(metric, {})

    def place(row: Line) -> tuple[float, str, int]:
        value = value_of.get((row[0], row[1]))
        return (inf if value is None else sign * value, row[0], -row[1])

    return sorted(rows, key=place)


def _versions() -> Select[Any]:
    """Query for the columns that lists need."""
    return select(*(VERSION[column] for column in LINE))


def _newest_or_aliased() -> Select[Any]:
    # `series.last` may be odd, so the newest version is the largest number among the rows themselves. The
    # upper bound excludes texts, which SQLite sorts after all numbers.
    series, other = tables.series.c.name, tables.version.alias().c
    last = select(func.max(other.number)).where(other.name == series, other.number.between(1, MOST))
    newest = select(series, last.scalar_subquery().label("number"))
    either = newest.union(select(ALIAS.name, ALIAS.number)).subquery()
    same = (VERSION.name == either.c.name) & (VERSION.number == either.c.number)
    return _versions().join(either, same)


def _is_of(criteria: Mapping[str, Any]) -> ColumnElement[bool]:
    """The condition for the name and model in the criteria, as `artifacts.finding.match` applies them."""
    conditions: list[ColumnElement[bool]] = []
    if "name" in criteria:
        conditions.append(VERSION.name == criteria["name"])
    if "model" in criteria:
        repo, _, commit = criteria["model"].partition("@")
        model, want = func.lower(VERSION.model), repo.lower()
        conditions.append((model == want) | model.endswith(f"/{want}", autoescape=True))
        if commit:
            # Compared as text: a JSON function would fail for all rows if one of them is not JSON.
            revision_text = f'"revision": {json.dumps(commit)}'
            conditions.append(cast(VERSION.source, Text).contains(revision_text, autoescape=True))
    return and_(*conditions) if conditions else TRUE


def _one_of(columns: Any, where: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition for rows of names that have such versions; it includes other versions of these names."""
    if where is TRUE:
        return TRUE
    condition: ColumnElement[bool] = columns.name.in_(select(VERSION.name).where(where))
    return condition


def _facts_of(db: Connection, where: ColumnElement[bool]) -> dict[str, dict[str, Any]]:
    """Facts of the versions that meet the condition, by their id."""
    query = select(tables.facts.c.id, tables.facts.c.facts)
    if where is not TRUE:
        query = query.where(tables.facts.c.id.in_(select(VERSION.facts_id).where(where)))
    return rows.facts(db.execute(query))


def _facts(db: Connection, lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Facts of these versions by their id."""
    query = select(tables.facts.c.id, tables.facts.c.facts)
    if len(lines) <= AT_ONCE:
        query = query.where(tables.facts.c.id.in_({row.facts_id for row in lines}))
    return rows.facts(db.execute(query))


def _aliases(db: Connection) -> Mapping[Named, tuple[str, ...]]:
    aliases_of: defaultdict[Named, tuple[str, ...]] = defaultdict(tuple)
    columns = ("name", "number", "alias")
    result = db.execute(select(*(ALIAS[column] for column in columns)).order_by(ALIAS.alias))
    for name, number, alias in rows.sound_tuples(tables.alias, columns, result.all()):
        aliases_of[name, number] += (alias,)
    return aliases_of


def _values(db: Connection, names: Iterable[str], where: ColumnElement[bool]) -> Values:
    """Values of some metrics."""
    columns = ("metric", "name", "number", "value")
    query = select(*(METRIC[column] for column in columns))
    values: dict[str, dict[Named, float]] = {name: {} for name in names}
    result = db.execute(query.where(where, METRIC.metric.in_(sorted(values))))
    for metric, name, number, value in rows.sound_tuples(tables.metric, columns, result.all()):
        values[metric][name, number] = value
    return values


def _listed_version(
    row: Line,
    facts: Mapping[str, Facts],
    aliases_of: Mapping[Named, tuple[str, ...]],
    values: Values,
) -> Listed:
    name, number, key, verdict, origin, model, facts_id, collected, published = row
    version_id = (name, number)
    figures = {
        metric: value_of[version_id] for metric, value_of in values.items() if version_id in value_of
    } or NO_FIGURES
    aliases = aliases_of.get(version_id, ())
    return Listed(
        name, number, key, verdict, origin, model, facts[facts_id], collected, published, aliases, figures
    )


def _complete(
    db: Connection, lines: Sequence[Line], facts: Mapping[str, Facts], extra_metrics: tuple[str, ...] = ()
) -> list[Listed]:
    """The versions with their aliases, the metrics of lists and `extra_metrics`."""
    condition: ColumnElement[bool] = TRUE
    if len(lines) <= AT_ONCE:  # names and numbers separately: SQLite scans the whole table for pairs
        condition = METRIC.name.in_({row.name for row in lines}) & METRIC.number.in_(
            {row.number for row in lines}
        )
    values, aliases_of = _values(db, (*FIGURES, *extra_metrics), condition), _aliases(db)
    return [_listed_version(row, facts, aliases_of, values) for row in lines]
