"""Whole findings: versions published from real plans, and a world that moves on."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from artifacts.registry.registry import Metric, Publication, open_registry
from artifacts.store.opening import open_store
from artifacts.version import VersionRecord
from pipeline.plan.plan import Plan
from pipeline.rebuild.find_stale import write_recipe
from pipeline.rebuild.host_pools import Pool
from pipeline.rebuild.replan import differences
from pipeline.rebuild.stale_reasons import World
from pipeline.rebuild.upstream import newest_commits
from pipeline.rebuild.version_survey import chosen, examine
from pipeline.run import publish
from pipeline.step.realize import Site
from recipes.load import load
from tests import hub as hubs
from tests.pipeline.plans import DEMO, HOST, planned, recipe_file
from tests.present import present

FACTS = {
    "backend": "aoti",
    "device": "cpu",
    "cpu": "avx512f",
    "toolchain": {"torch": "2.13.0"},
    "world_size": 2,
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(store=open_store(tmp_path / "store"), host=HOST)


def publish_plan(plan: Plan, site: Site, *, alias: str | None = "prod", **more) -> VersionRecord:
    """A version whose steps are in the store with small files, as if each had taken no time."""
    for step in plan.steps:
        if not site.store.has(step.key):
            with site.store.write(step.key, kind=step.kind, step=step.as_dict(), host={}) as draft:
                (draft.path / "file").write_text(step.key)
    registry = open_registry(site.store.registry_url)
    recipe = plan.recipe.model_dump(mode="json", exclude_none=True, by_alias=True)
    number = registry.publish(
        Publication(
            name=plan.recipe.name, alias=alias, engine_key=plan.step("engine").key, recipe=recipe,
            verdict="PASS", facts=FACTS, lineage=publish.lineage(plan), metrics=[Metric("kl", 0.1)],
            **{"source": publish.origin(plan), **more},
        )
    )  # fmt: skip
    return registry.resolve(f"{plan.recipe.name}:{number}")


def world(*pools: Pool, heads=None, days: int = 90) -> World:
    return World(now=datetime.now(UTC), pools=pools, heads=heads or {}, gate_max_age=timedelta(days=days))


def with_own_data(tmp_path: Path) -> Path:
    """The demo recipe over a calibration set of the test's own."""
    data = tmp_path / "calibration.jsonl"
    shutil.copy(DEMO / "data" / "calibration.jsonl", data)
    return recipe_file(tmp_path, **{"calibration.data": [{"path": str(data)}]})


def test_a_version_whose_world_stood_still_has_no_reason_and_no_rebuild(tmp_path: Path, site: Site):
    record = publish_plan(planned(recipe_file(tmp_path), site), site)
    finding = examine(record, site, world(Pool(name="here", torch="2.13.0")))
    assert (finding.reasons, finding.rebuild, finding.problem) == ((), None, "")


def test_other_calibration_data_is_found_by_planning_again_and_only_what_follows_is_to_run(
    tmp_path: Path, site: Site
):
    file = with_own_data(tmp_path)
    record = publish_plan(planned(file, site), site)
    data = tmp_path / "calibration.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    finding = examine(record, site, world())
    (reason,) = finding.reasons
    assert reason.text.startswith("today's plan makes another calibration_set: data")
    assert reason.loads
    run = present(finding.rebuild).to_run
    assert {"calibration_set", "quantized_checkpoint", "engine", "evaluation"} <= run.keys()
    assert {"source", "baseline"}.isdisjoint(run)
    assert present(finding.rebuild).unknown == ()
    assert present(finding.rebuild).gpu_hours == 0  # a CPU engine occupies no GPU


def test_a_recipe_that_is_not_on_this_host_is_said(tmp_path: Path, site: Site):
    plan = planned(recipe_file(tmp_path), site)
    away = publish_plan(plan, site, source={"path": "model", "file": "/nowhere/at/all/recipe.yaml"})
    finding = examine(away, site, world(Pool(name="p", torch="2.14")))
    assert [reason.kind for reason in finding.reasons] == ["toolchain"]
    assert "was run from /nowhere/at/all/recipe.yaml, which is not on this host" in finding.problem


def test_a_stored_recipe_that_is_refused_today_is_said(tmp_path: Path, site: Site):
    record = publish_plan(planned(recipe_file(tmp_path), site), site)
    unread = record.recipe | {"schedule": {"cron": "every night", "timezone": "UTC"}}  # 0.1 published this
    finding = examine(replace(record, recipe=unread), site, world(Pool(name="p", torch="2.14")))
    assert finding.rebuild is None
    assert "its recipe is no longer valid (schedule.cron: " in finding.problem


def test_a_rebuild_that_would_make_the_same_again_is_none(tmp_path: Path, site: Site):
    record = publish_plan(planned(recipe_file(tmp_path), site), site)
    finding = examine(record, site, world(Pool(name="edge", torch="2.14"), days=-1))
    assert {reason.kind for reason in finding.reasons} == {"toolchain", "gate"}
    assert finding.rebuild is None
    assert finding.problem == (
        "its recipe makes the same engine and verdict here; build it on a host of its pool "
        "and give its recipe newer gate data"
    )


def test_a_new_commit_is_planned_with_that_commit(
    tmp_path: Path, site: Site, hub: hubs.Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    hub.head = "b" * 40
    heads, problems = newest_commits(["acme/tiny", "acme/other"])
    assert heads == {"acme/tiny": "b" * 40}
    assert "acme/other" in problems["acme/other"]


def test_a_written_recipe_loads_and_plans_to_the_same_engine(tmp_path: Path, site: Site):
    file = with_own_data(tmp_path)
    record = publish_plan(planned(file, site), site)
    data = tmp_path / "calibration.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    finding = examine(record, site, world())
    written = write_recipe(present(finding.rebuild), tmp_path / "rebuilds")
    assert written.name == f"{record.name.replace('/', '-')}.yaml"
    assert planned(written, site).step("engine").key == present(finding.rebuild).plan.step("engine").key
    (loaded,) = load(written)
    assert loaded.recipe.name == record.name


def test_aliased_versions_are_looked_at_and_the_newest_of_names_without_aliases(tmp_path: Path, site: Site):
    plan = planned(recipe_file(tmp_path), site)
    first = publish_plan(plan, site)
    registry = open_registry(site.store.registry_url)
    other = planned(recipe_file(tmp_path, **{"engine.max_batch_size": 3}), site)
    second = publish_plan(other, site, alias=None)
    records = registry.versions(first.name)
    assert [one.number for one in chosen(records, every=False)] == [first.number]
    assert [one.number for one in chosen(records, every=True)] == [first.number, second.number]


def test_differences_name_every_leaf():
    before, after = {"a": {"b": 1, "c": 2}, "d": "x"}, {"a": {"b": 1, "c": 3}, "e": [1]}
    assert list(differences(before, after)) == ["a.c: 2 -> 3", "d: x -> None", "e: None -> [1]"]
