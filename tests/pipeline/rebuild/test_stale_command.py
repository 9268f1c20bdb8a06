"""`enginery registry stale` from the shell: pools of a file, the hub's newest commit, days of a verdict, recipes to build."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from artifacts.manifest import MANIFEST
from artifacts.store.opening import open_store
from pipeline.process.host import probe
from pipeline.step.realize import Site
from tests import hub as hubs
from tests.callables import Ask
from tests.main_job import DEMO
from tests.pipeline.plans import planned, recipe_file
from tests.pipeline.rebuild.test_version_survey import publish_plan, with_own_data


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The store that `ask` uses, on this host: the command plans for the host that it runs on."""
    return Site(store=open_store(tmp_path / "store"), host=probe())


@pytest.fixture
def stale(ask: Ask) -> Callable[..., tuple[dict[str, str], str]]:
    """Runs the command without the hub; returns why each version is stale, by its reference, and what was told."""

    def run(*args: str, offline: bool = True) -> tuple[dict[str, str], str]:
        code, out, err = ask("--json", "registry", "stale", *(["--offline"] if offline else []), *args)
        assert code == 0, err
        return {row["version"]: row["why"] for row in json.loads(out)}, err

    return run


def test_pools_of_a_file_decide_what_is_stale_and_what_it_costs(
    stale: Callable[..., tuple[dict[str, str], str]], ask: Ask, site: Site, tmp_path: Path
):
    publish_plan(planned(recipe_file(tmp_path), site), site)
    pools = tmp_path / "pools.yaml"
    pools.write_text('version: 1\npools: [{name: edge, torch: "2.14.0"}]\n')
    found, err = stale("--pools", str(pools))
    assert found == {"demo/int4_awq_tp2:1": "built with torch 2.13.0; pool 'edge' has 2.14.0"}
    assert "0 of 1 versions match" in err
    pools.write_text('version: 1\npools: [{name: edge, torch: "2.13.0"}]\n')
    assert stale("--pools", str(pools))[0] == {}
    pools.write_text("version: 1\npools: [{name: edge, gpu: h300}]\n")
    assert ask("registry", "stale", "--offline", "--pools", str(pools))[0] == 2


def test_recipes_of_rebuilds_are_written_and_plan(
    stale: Callable[..., tuple[dict[str, str], str]], ask: Ask, site: Site, tmp_path: Path
):
    publish_plan(planned(with_own_data(tmp_path), site), site)
    data = tmp_path / "calibration.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    found, err = stale("demo/int4_awq_tp2", "--write", str(tmp_path / "rebuilds"))
    assert "makes another calibration_set" in found["demo/int4_awq_tp2:1"]
    (file,) = (tmp_path / "rebuilds").iterdir()
    assert f"wrote {file}" in err
    status = {row["step"]: row["status"] for row in json.loads(ask("--json", "plan", str(file))[1])["steps"]}
    assert (status["source"], status["calibration_set"], status["engine"]) == ("cached", "run", "run")


def test_every_version_and_the_days_of_a_verdict(
    stale: Callable[..., tuple[dict[str, str], str]], site: Site, tmp_path: Path
):
    publish_plan(planned(recipe_file(tmp_path), site), site)
    publish_plan(planned(recipe_file(tmp_path, **{"engine.max_batch_size": 3}), site), site)
    long_ago = {"created_at": datetime.now(UTC) - timedelta(days=40)}
    for key in site.store.keys():  # noqa: SIM118 a store is no dict
        manifest = site.store.manifest(key)
        if manifest.kind == "evaluation":  # as if it had been judged long ago
            file = site.store.path(key) / MANIFEST
            file.chmod(0o644)
            file.write_text(manifest.model_copy(update=long_ago).to_text())
    pools = tmp_path / "pools.yaml"
    pools.write_text("version: 1\npools: []\n")
    assert stale("--pools", str(pools))[0] == {}
    assert stale("--pools", str(pools), "--gate-max-age", "30")[0].keys() == {"demo/int4_awq_tp2:2"}
    every = stale("--pools", str(pools), "--gate-max-age", "30", "--all")[0]
    assert set(every.values()) == {"its accuracy was judged 40 days ago; a verdict is valid for 30 days"}
    assert len(every) == 2


def test_the_hub_is_asked_for_newer_commits_unless_it_must_not_be(
    stale: Callable[..., tuple[dict[str, str], str]],
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    files = {path.name: path.read_bytes() for path in (DEMO / "model").iterdir() if path.is_file()}
    with hubs.serve(files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        of_hub = {"model": {"repo": hubs.REPO, "revision": hubs.COMMIT}}
        publish_plan(planned(recipe_file(tmp_path, **of_hub), site), site)
        hub.head = "b" * 40
        pools = tmp_path / "pools.yaml"
        pools.write_text("version: 1\npools: []\n")
        assert stale("--pools", str(pools))[0] == {}
        found, _ = stale("--pools", str(pools), offline=False)
        assert f"{hubs.REPO} is at commit bbbbbbbbbbbb" in found["demo/int4_awq_tp2:1"]
