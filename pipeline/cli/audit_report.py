"""What `verify --all` and `repair --all` say of a registry: read whole, its findings in lines, what to do."""

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.cli.app import App

if TYPE_CHECKING:
    from artifacts.registry.audit import Audit

MOST_SHOWN = 80
"""Findings in a registry that are named; the others are counted, so that damaged files are read of too."""

CURE = (
    "a changed row is only known from a backup of the registry: compare, and restore it, or put the row right"
    " by hand; `enginery store repair --all --from STORE|DIRECTORY` brings back an engine that is gone from"
    " another store or a pull that has it; else build its recipe again"
)


def audited(app: App, *, engines: bool = True) -> "Audit | None":
    """What the registry says when all of it is read; None of a store that never had one.

    `engines` asks whether the store has the versions' engines.
    """
    from artifacts.collection.registries import lost, other
    from artifacts.errors import StoreUnusable
    from artifacts.registry.audit import Audit, Finding, audit  # SQLAlchemy: not for --help
    from artifacts.registry.database import connect

    store, named_url = app.client.store, app.client.registry_named
    if named_url is None and store.remote is not None:
        return None  # a remote store has no registry in it, and none was named
    database = connect(named_url or store.registry_url)
    try:
        exists = database.schema() is not None
    except StoreUnusable:
        exists = True  # whatever it is: the audit says it
    if exists:
        report = audit(database, store if engines else None)
        own = store.remote is None and database.url == store.registry_url
        strange = other(store.shared, database) if own and not report.unreadable else None
        first = () if strange is None else (Finding(where="registry", what=strange),)
        return replace(report, findings=(*first, *report.findings))
    problem = lost(store, database.url)
    if problem is None:
        return None
    return Audit(rows=0, versions=0, findings=(Finding(where="registry", what=problem),), unreadable=True)


def findings(audit: "Audit | None") -> list[str]:
    """Findings in lines, the first of very many, below how many there are; nothing where there is none."""
    if audit is None or not audit.findings:
        return []
    number = len(audit.findings)
    lines = [f"  {finding}" for finding in audit.findings[:MOST_SHOWN]]
    more = [f"  and {number - MOST_SHOWN:,} more"] if number > MOST_SHOWN else []
    return [f"{number:,} finding{'' if number == 1 else 's'} in the registry:", *lines, *more]


def require_sound(audit: "Audit | None") -> None:
    """Refuses a registry with findings, which repair cannot cure: only a backup knows what was there."""
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help

    lines = findings(audit)
    if lines:
        error = ArtifactCorrupt("\n".join(["repair cannot put the registry right:", *lines]))
        error.add_note(CURE)
        raise error
