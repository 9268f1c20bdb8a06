"""Finds stale versions, from a query to findings, and records them as events."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from pipeline.rebuild.host_pools import Pool, load_pools, pool_of_host
from pipeline.rebuild.replan import Rebuild
from pipeline.rebuild.stale_reasons import World
from pipeline.rebuild.upstream import newest_commits
from pipeline.rebuild.version_survey import Finding, chosen, survey
from pipeline.run.workspace import Workspace
from pipeline.toolchains.discovery import discover


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleQuery:
    """What to look at, and what counts as old."""

    names: tuple[str, ...] = ()
    """Only versions of these names; none: of all."""
    pools: Path | None = None
    """File of pools; none: this host."""
    gate_days: int = 90
    every: bool = False
    """Every version, not only aliased and newest ones."""
    offline: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON, for a flow's parameters."""
        # the worker that runs the flow has another working directory
        return {**asdict(self), "pools": str(self.pools.resolve()) if self.pools else None}

    @classmethod
    def of(cls, document: dict[str, Any]) -> "StaleQuery":
        """What `as_dict` wrote."""
        pools = document["pools"]
        # JSON has neither tuples nor paths
        return cls(**{**document, "names": tuple(document["names"]), "pools": Path(pools) if pools else None})


def list_stale_versions(query: StaleQuery, workspace: Workspace, say: Callable[[str], None]) -> list[Finding]:
    """Findings of every version asked for; for what is stale, an event `rebuild_needed`, once per reason."""
    selected = (record for name in query.names for record in workspace.registry.versions(name))
    records = chosen(list(selected if query.names else workspace.registry.every()), every=query.every)
    repos = {str(record.source["repo"]) for record in records if record.source.get("repo")}
    heads, unasked = ({}, {}) if query.offline else newest_commits(repos)
    # not an error: all other reasons can still be found without the hub
    for problem in unasked.values():
        say(f"newer commits are unknown: {problem}")
    world = World(
        now=datetime.now(UTC),
        pools=_pools(query, workspace),
        heads=heads,
        gate_max_age=timedelta(days=query.gate_days),
    )
    findings = survey(
        records,
        workspace.site,
        world,
        lambda done, total: say(f"looked at {done} of {total}") if done % 20 == 0 else None,
    )
    for finding in findings:
        # asked every time: the registry itself writes one event for each reason
        if finding.reasons:
            texts = [reason.text for reason in finding.reasons]
            workspace.registry.rebuild_needed(finding.record.name, finding.record.number, texts)
    return findings


def _pools(query: StaleQuery, workspace: Workspace) -> tuple[Pool, ...]:
    if query.pools is not None:
        return load_pools(query.pools)
    return (pool_of_host(workspace.site.host, discover(workspace.site.store.root, os.environ)),)


def write_recipe(rebuild: Rebuild, folder: Path) -> Path:
    """Writes the rebuild's recipe, with absolute paths, as a file of its own; returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = rebuild.loaded.recipe
    document = recipe.model_dump(mode="json", exclude_none=True, by_alias=True)
    file = folder / f"{recipe.name.replace('/', '-')}.yaml"
    file.write_text(yaml.safe_dump(_absolute(document, rebuild.loaded.base.resolve()), sort_keys=False))
    return file


def _absolute(value: Any, base: Path) -> Any:
    """The document with every `path` starting at the root, so that the file may stand anywhere."""
    if isinstance(value, dict):
        return {
            key: str(base / item) if key == "path" and isinstance(item, str) else _absolute(item, base)
            for key, item in value.items()
        }
    return [_absolute(item, base) for item in value] if isinstance(value, list) else value
