"""What enginery 0.1 published, read by today's code: shown, compared, planned and built again."""

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from artifacts import digest
from artifacts.client import Client
from artifacts.store.local import LocalStore
from pipeline.child.kinds import KINDS, PUBLISHED, kind_of, maker, of_0_1
from pipeline.cli.app import App
from pipeline.cli.commands.reproduce import _print_reproduction
from pipeline.cli.main import enginery
from pipeline.plan.plan import Plan
from pipeline.plan.planning import plan_one
from pipeline.process.host import Gpu, Host, probe
from pipeline.rebuild import reproduction
from pipeline.rebuild.replan import changed_inputs
from pipeline.rebuild.step_differences import is_same, otherwise
from pipeline.run.publish import lineage
from pipeline.step.realize import Site
from pipeline.step.step import Step
from tests.callables import Cli
from tests.published_0_1 import BUILDERS, lay_out

NAMES = ("published/int8", "published/int8_wo", "published/fp8_tuned")


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """The inputs of three versions, and their store and registry in `store`."""
    lay_out(tmp_path)
    return tmp_path


@pytest.fixture
def client(where: Path) -> Client:
    return Client(str(where / "store"))


LATER = ("params.layout_version was 2, is 3", "revision was 3, is 4", "revision was 1, is 2")
"""What later releases write otherwise under parameters that 0.1 had."""


def undated(step: Step) -> Step:
    """The step without the date that chat templates are told since."""
    data = getattr(step.params, "data", None)
    if data is None:
        return step
    plain = [
        item.model_copy(update={"date": None}) for item in (data if isinstance(data, tuple) else (data,))
    ]
    params = step.params.model_copy(update={"data": tuple(plain) if isinstance(data, tuple) else plain[0]})
    return dataclasses.replace(step, params=params)


def said(where: Path, *argv) -> str:
    """What a command prints; it succeeds."""
    done = CliRunner().invoke(enginery, ["--no-color", "--store", str(where / "store"), *argv])
    assert done.exit_code == 0, (argv, done.output, done.exception)
    return done.stdout


def planned(client: Client, where: Path, name: str) -> tuple[Plan, Site]:
    """Today's plan of a version's recipe, on the host that built it."""
    record = client.resolve(name)
    built_on = dict(client.store.manifest(record.engine_key).host)
    tools = {**probe().tools, **built_on["tools"]}  # 0.1 did not look for all that keys name today
    host = Host(**{**built_on, "tools": tools, "gpus": tuple(Gpu(**gpu) for gpu in built_on["gpus"])})
    site = Site(store=client.store, host=host)
    return plan_one(reproduction.recipe_of(record, where), site), site


def test_every_builder_of_0_1_has_a_kind_and_the_kind_a_function():
    from pipeline.child.door import load

    assert sorted(PUBLISHED) == sorted(BUILDERS)
    assert len(set(PUBLISHED.values())) == len(PUBLISHED)
    for kind in PUBLISHED.values():
        assert callable(load(maker(kind).function)), kind
    assert KINDS.keys() <= set(PUBLISHED.values())


def test_its_manifests_are_what_0_1_wrote_and_no_key_of_today_can_be_one_of_theirs(
    client: Client, where: Path
):
    steps = {key: client.store.manifest(key).step for key in client.store.keys()}  # noqa: SIM118 a store is no dict
    assert len({kind_of(step) for step in steps.values()}) == 12
    for key, step in steps.items():
        assert of_0_1(step)
        assert digest.of_json(step) == key
        assert step.keys() == {"kind", "revision", "builder", "inputs", "params"}
    for name in NAMES:
        for new in planned(client, where, name)[0].all_steps:
            # what is hashed has other fields, so equal keys would be a collision of SHA-256
            assert new.as_dict().keys() == {"kind", "revision", "inputs", "params"}
            assert digest.of_json(new.as_dict()) == new.key
            assert new.key not in steps


def test_versions_and_artifacts_are_shown(client: Client, where: Path):
    for name in NAMES:
        assert client.resolve(name).engine_key in said(where, "show", f"{name}:1")
        assert name in said(where, "ls")
        said(where, "card", f"{name}:1", "-o", str(where / "card.html"))
    assert said(where, "diff", "published/int8:1", "published/fp8_tuned:1")
    for key in client.store.keys():  # noqa: SIM118 a store is no dict
        manifest = client.store.manifest(key)
        assert f"{manifest.kind} {key}" in said(where, "show", key[:12])
        shown = json.loads(said(where, "--json", "show", key))
        assert (shown["inputs"], shown["params"]) == (manifest.step["inputs"], manifest.step["params"])


@pytest.mark.parametrize("name", NAMES)
def test_todays_plan_asks_for_all_that_0_1_asked_for(client: Client, where: Path, name: str):
    record, (plan, _) = client.resolve(name), planned(client, where, name)
    now = {name: next(step for step in plan.steps if step.key == key) for name, key in lineage(plan).items()}
    assert now.keys() == record.lineage.keys()
    for stage, was in record.lineage.items():
        told = list(otherwise(client.store.manifest(was).step, undated(now[stage])))
        later = [text for text in told if " was absent, is " in text or text in LATER]
        assert told == later, stage
    assert reproduction.changed_sources(record, plan) == []


def test_another_model_is_told_though_all_keys_are_others(client: Client, where: Path):
    record = client.resolve("published/int8_wo")
    config = where / "model" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    plan, _ = planned(client, where, "published/int8_wo")
    assert reproduction.changed_sources(record, plan) == ["source"]
    assert not is_same(record.lineage["source"], plan.step("source"))


def test_a_version_is_stale_for_what_changed_and_not_for_its_key(client: Client, where: Path):
    record = client.resolve("published/int8_wo")
    plan, site = planned(client, where, "published/int8_wo")
    reasons = changed_inputs(record, plan, site)
    (reason,) = reasons
    assert reason.text == "today's plan makes another sharded_checkpoint: layout_version: 2 -> 3"
    gate = where / "gate.jsonl"
    gate.write_text("".join(gate.read_text().splitlines(keepends=True)[:-1]))
    baseline = planned(client, where, "published/int8_wo")[0].step("baseline")
    told = list(otherwise(client.store.manifest(record.lineage["baseline"]).step, undated(baseline)))
    assert any(text.startswith("params.data.digests") for text in told), told


def test_that_keys_are_made_otherwise_is_said_also_of_what_gc_took(
    client: Client, where: Path, capsys: pytest.CaptureFixture[str]
):
    record, (plan, _) = client.resolve("published/int8_wo"), planned(client, where, "published/int8_wo")
    rebuilt = LocalStore(where / "rebuilt")
    stages = []
    for kind in ("source", "quantized_checkpoint"):
        step = plan.step(kind)
        with rebuilt.write(step.key, kind=kind, step=step.as_dict(), host={}) as draft:
            (draft.path / "report.json").write_text("{}")
        if kind == "source":
            client.store.discard(record.lineage[kind])
        stages.append(reproduction._stage(kind, record.lineage[kind], step, client.store, rebuilt))
    assert [(one.missing, one.rekeyed, one.asked) for one in stages] == [(True, True, ()), (False, True, ())]
    app = App(str(where / "store"), None, json_mode=False, quiet=False, color=False)
    _print_reproduction(app, reproduction.Reproduction(reference="published/int8_wo:1", stages=tuple(stages)))
    told = capsys.readouterr().out
    assert told.count("the same parameters") == 3
    assert "enginery 0.1 published it, and keys are computed differently since" in told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_version_is_built_again_and_compared(cli: Cli, where: Path):
    done = cli(
        "--store", where / "store", "--json", "trust", "reproduce", "published/int8_wo:1", "--base", where
    )
    assert done.returncode == 1, (
        done.stderr
    )  # since 0.1, config.json names the head for TensorRT-LLM 0.10 too
    found = json.loads(done.stdout)["answer"]
    stages = {stage["kind"]: stage for stage in found["stages"]}
    assert list(stages) == ["source", "quantized_checkpoint", "sharded_checkpoint", "engine"]
    for stage in stages.values():
        assert stage["rekeyed"]
        assert stage["key"] != stage["was"]
        assert not stage["missing"]
    for kind in ("source", "quantized_checkpoint"):
        assert stages[kind]["differences"] == []
    (difference,) = stages["sharded_checkpoint"]["differences"]
    assert difference["name"] == "config.json"
    assert "quantization.exclude_modules was ['*lm_head', " in difference["what"]
    assert stages["engine"]["identical"] > 0
    assert found["outcome"] == "different"
    matter = {one["name"]: one["what"] for one in stages["engine"]["differences"] if one["matters"]}
    assert list(matter) == ["config.json"]
    assert "exclude_modules was ['*lm_head', " in matter["config.json"]
