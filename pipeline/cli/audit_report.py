"""What `verify --all` and `store repair --all` report about a registry: its findings and what to do."""

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.cli.app import App

if TYPE_CHECKING:
    from artifacts.registry.audit import Audit

MOST_SHOWN = 80
"""Findings that are printed; the others are counted, so that damaged files stay in view."""

CURE = (
    "a changed row can only be recovered from a backup of the registry: restore it, or correct the row"
    " by hand; `enginery store repair --all --from STORE|DIRECTORY` restores a missing engine from"
    " another store or a pulled directory that has it; else build its recipe again"
)


def audited(app: App, *, engines: bool = True) -> "Audit | None":
    """Audits the whole registry; None for a store that never had one.

    `engines` also checks that the store has the versions' engines.
    """
    from artifacts.collection.registries import foreign_registry_message, missing_registry_message
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
        strange = foreign_registry_message(store.shared, database) if own and not report.unreadable else None
        first = () if strange is None else (Finding(where="registry", what=strange),)
        return replace(report, findings=(*first, *report.findings))
    problem = missing_registry_message(store, database.url)
    if problem is None:
        return None
    return Audit(rows=0, versions=0, findings=(Finding(where="registry", what=problem),), unreadable=True)


def findings(audit: "Audit | None") -> list[str]:
    """The number of findings, then the first of them, one per line; empty without findings."""
    if audit is None or not audit.findings:
        return []
    number = len(audit.findings)
    lines = [f"  {finding}" for finding in audit.findings[:MOST_SHOWN]]
    more = [f"  and {number - MOST_SHOWN:,} more"] if number > MOST_SHOWN else []
    return [f"{number:,} finding{'' if number == 1 else 's'} in the registry:", *lines, *more]


def require_sound(audit: "Audit | None") -> None:
    """Raises ArtifactCorrupt for a registry with findings: repair cannot restore rows, only a backup can."""
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help

    lines = findings(audit)
    if lines:
        error = ArtifactCorrupt("\n".join(["repair cannot restore the registry:", *lines]))
        error.add_note(CURE)
        raise error
