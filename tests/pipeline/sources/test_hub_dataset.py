"""Hub datasets: which files a recipe means, their download from a real server, and plans with them."""

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from artifacts.store.opening import open_store
from calibration.errors import DataError
from pipeline.errors import SourceError
from pipeline.plan.plan import Plan
from pipeline.plan.planning import plan_one
from pipeline.process.host import probe
from pipeline.sources import hub_dataset
from pipeline.step.realize import Listener, Site, realize
from recipes.data import Data
from recipes.errors import RecipeError
from recipes.load import load
from tests import hub as hubs
from tests.checkpoints import Reports, start_build, until
from tests.jobs import build_dataset
from tests.main_job import write_recipe
from tests.odd import MANY_ALIASES

CARD = """---
license: mit
configs:
- config_name: plain
  default: true
  data_files:
  - split: train
    path: plain/train-*
  - split: test
    path: [plain/test.jsonl]
- config_name: chats
  data_dir: chats
---
# Texts
"""
SECRET = "hf_abcdefghijklmnopqrstuvwxyz0123456789"


def parquet(*texts: str) -> bytes:
    """A Parquet file with a column of texts."""
    out = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), out, compression="none", use_dictionary=False)
    return out.getvalue()


FILES = {
    "README.md": CARD.encode(),
    "tiny.py": b"raise SystemExit('code of the hub ran')",
    "plain/train-00000-of-00002.parquet": parquet(
        *(f"the engine reads text {i} of the first" for i in range(300))
    ),
    "plain/train-00001-of-00002.parquet": parquet(
        *(f"the engine reads text {i} of the second" for i in range(300))
    ),
    "plain/test.jsonl": b"".join(
        json.dumps({"text": f"held-out text {i}"}).encode() + b"\n" for i in range(200)
    ),
    "chats/train.jsonl": b'{"messages": [{"role": "user", "content": "hi"}]}\n',
}
TRAIN = [name for name in FILES if name.startswith("plain/train-")]
BIG = TRAIN[0]


@pytest.fixture
def hub() -> Iterator[hubs.Hub]:
    with hubs.serve(dict(FILES)) as server:
        yield server


def item(**changes) -> Data:
    return Data(**({"repo": hubs.REPO, "revision": hubs.COMMIT} | changes))


CONFIGS = hub_dataset.configurations(CARD, "x")

NAMES = ["data/train-00000-of-00001.parquet", "data/dev-00000-of-00001.parquet", "README.md"]

CHOSEN = {
    "the card's default": (item(), FILES, CONFIGS, TRAIN),
    "a split of the card": (item(split="test"), FILES, CONFIGS, ["plain/test.jsonl"]),
    "a directory of the card": (item(config="chats"), FILES, CONFIGS, ["chats/train.jsonl"]),
    "patterns": (item(files=("plain/*.parquet",)), FILES, CONFIGS, TRAIN),
    "patterns beside a script": (item(files=("**/*.jsonl",)), FILES, [], ["chats/train.jsonl", "plain/test.jsonl"]),
    "names of shards": (item(), NAMES, [], ["data/train-00000-of-00001.parquet"]),
    "dev is validation": (item(split="validation"), NAMES, [], ["data/dev-00000-of-00001.parquet"]),
    "a split of its own": (item(split="sft"), ["data/sft-00000-of-00001.parquet"], [], ["data/sft-00000-of-00001.parquet"]),
    "no split in the names": (item(), ["a.csv", "b.csv", "LICENSE.txt", "README.md"], [], ["a.csv", "b.csv"]),
    "one path for all": (item(), ["a.csv", "b.csv"], [{"config_name": "x", "data_files": "a.csv"}], ["a.csv"]),
    "splits as a mapping": (item(split="val"), ["a.csv", "b.csv"], [{"data_files": {"val": "b.csv"}}], ["b.csv"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOSEN)
def test_the_files_that_a_source_means(case: str):
    source, names, configs, expected = CHOSEN[case]
    assert hub_dataset.choose(source, names, configs, "x") == expected


REFUSED = {
    "script": (item(), ["tiny.py", "data.csv"], [], "needs its loading script tiny.py, and code from the hub is not run"),
    "config without a card": (item(config="en"), NAMES, [], "config 'en', but its card lists none"),
    "no such config": (item(config="en"), FILES, CONFIGS, "no config 'en'; name one of plain, chats"),
    "several configs": (item(), FILES, [{"config_name": "a"}, {"config_name": "b"}], "several configs; name one of a, b"),
    "no such split": (item(split="dev"), FILES, CONFIGS, "no split 'dev'; name one of train, test"),
    "no train": (item(), ["test.csv"], [], "no split 'train', which is the default; name one of test"),
    "nothing matches": (item(files=("*.csv",)), FILES, CONFIGS, r"no file matches '\*.csv'; have README.md"),
    "no data": (item(), ["README.md", "a.zip"], [], "no data files .*; have README.md, a.zip"),
    "unknown kind": (item(files=("a.zip",)), ["a.zip"], [], "unknown kind of data file '.zip'; have .jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_source_may_not_mean(case: str):
    source, names, configs, said = REFUSED[case]
    with pytest.raises(DataError, match=said):
        hub_dataset.choose(source, names, configs, "x")


@pytest.mark.parametrize("front", ["configs: [", "a: &a [*a]", "a: !!int x", MANY_ALIASES])
def test_a_card_that_is_not_yaml_is_said_to_be_so(front: str):
    with pytest.raises(DataError, match=r"x: README\.md: not YAML"):
        hub_dataset.configurations(f"---\n{front}\n---\n", "x")
    assert hub_dataset.configurations("# no front matter", "x") == []


def test_a_card_may_hold_any_number_key_and_date():
    front = "released: 2021-02-29\nnames: {0: a, 1: b}\nvalue: 1.0e-40\nconfigs: [{config_name: a}]"
    assert hub_dataset.configurations(f"---\n{front}\n---\n", "x") == [{"config_name": "a"}]


def job(hub: hubs.Hub, cache: Path, files: list[str] = TRAIN) -> dict[str, Any]:
    return {"params": {"repo": hubs.REPO, "revision": hubs.COMMIT, "files": files},
            "places": {"endpoint": hub.address, "cache": str(cache)}, "inputs": {}}  # fmt: skip


def held(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_only_the_planned_files_are_fetched(hub: hubs.Hub, tmp_path: Path, out: Path):
    reports = Reports()
    build_dataset(job(hub, tmp_path), out, reports)
    assert held(out) == {name: FILES[name] for name in TRAIN}
    assert hub.requests.keys() == {"api", *TRAIN}
    total = sum(len(FILES[name]) for name in TRAIN)
    assert reports[-1] == (total, total, "bytes fetched")


@pytest.mark.parametrize("reset", [False, True])
def test_a_dropped_download_goes_on_where_it_stopped(reset: bool, hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults[BIG] = [hubs.drop_after(500, reset=reset)]
    build_dataset(job(hub, tmp_path), out, Reports())
    assert held(out) == {name: FILES[name] for name in TRAIN}
    assert (BIG, 500) in hub.ranges


@pytest.mark.slow
def test_a_download_killed_from_outside_goes_on_where_it_stopped(hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults[BIG] = [hubs.drop_after(12_000, pause_s=5)]
    child = start_build(job(hub, tmp_path), out, builder="build_dataset")
    name = f"{Path(BIG).name}.part"
    until(lambda: any(part.stat().st_size > 0 for part in tmp_path.rglob(name)))
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    (part,) = tmp_path.rglob(name)
    kept = part.stat().st_size
    again = out.with_name("again")
    again.mkdir()
    build_dataset(job(hub, tmp_path), again, Reports())
    assert held(again) == {name: FILES[name] for name in TRAIN}
    assert (BIG, kept) in hub.ranges


def test_wrong_bytes_and_files_that_lead_out_are_refused(hub: hubs.Hub, tmp_path: Path, out: Path):
    hub.faults[BIG] = [hubs.garble, hubs.garble]
    with pytest.raises(SourceError, match=rf"{BIG}: sha256:\w+ expected, sha256:\w+ found"):
        build_dataset(job(hub, tmp_path), out, Reports())
    hub.files["../../escape.jsonl"] = b"{}"
    with pytest.raises(SourceError, match="leads out of the repository"):
        build_dataset(job(hub, tmp_path / "other"), out, Reports())
    assert held(out) == {}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(store=open_store(tmp_path / "store"), host=probe())


def recipe_with(tmp_path: Path, **changes: object) -> Path:
    """A recipe calibrated on and judged by the hub's dataset."""
    file = write_recipe(tmp_path / "recipe.yaml")
    document = yaml.safe_load(file.read_text())
    place = {"repo": hubs.REPO, "revision": hubs.COMMIT}
    document["calibration"]["data"] = [place | {"samples": 400}]
    document["gate"]["data"] = place | {"split": "test"}
    document["calibration"]["seq_len"] = document["gate"]["seq_len"] = 64
    document["gate"]["data"] |= changes
    file.write_text(yaml.safe_dump(document))
    return file


def made(plan: Plan, site: Site):
    """Makes all steps up to the one that would use a GPU."""
    kinds = ("source", "dataset", "calibration_set", "leakage")
    return [realize(step, site, Listener()) for step in plan.steps if step.kind in kinds]


@pytest.mark.slow
def test_a_recipe_of_hub_data_is_planned_fetched_once_and_needs_no_network_again(
    hub: hubs.Hub, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (loaded,) = load(recipe_with(tmp_path))
    plan = plan_one(loaded, site)
    assert hub.sent[BIG] == 0
    kinds = [step.kind for step in plan.steps]
    assert kinds[:6] == ["source", "dataset", "dataset", "calibration_set", "leakage", "statistics"]
    steps = made(plan, site)
    assert not any(one.cached for one in steps)
    report = json.loads((site.store.path(steps[3].step.key) / "report.json").read_text())
    (source,) = report["sources"]
    assert (source["rows"], source["taken"]) == (600, 400)
    assert {f"Bearer {SECRET}"} == {token for path, token in hub.tokens if path.startswith("/api/")}
    stored = [path for path in site.store.root.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in path.read_bytes() for path in stored)
    asked = dict(hub.requests)
    again = plan_one(loaded, site)
    assert [step.key for step in again.steps] == [step.key for step in plan.steps]
    assert all(one.cached for one in made(again, site))
    assert dict(hub.requests) == asked


def test_a_moved_hub_moves_no_key(hub: hubs.Hub, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    (loaded,) = load(recipe_with(tmp_path))
    before = [step.key for step in plan_one(loaded, site).steps]
    monkeypatch.setenv("HF_ENDPOINT", hub.address.replace("127.0.0.1", "localhost"))
    assert [step.key for step in plan_one(loaded, site).steps] == before


@pytest.mark.slow
def test_leakage_between_hub_splits_stops_the_run_and_touches_no_other_key(
    hub: hubs.Hub, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    clean = plan_one(load(recipe_with(tmp_path))[0], site)
    leaky = plan_one(load(recipe_with(tmp_path, split="train"))[0], site)
    assert clean.step("calibration_set").key == leaky.step("calibration_set").key
    assert clean.step("statistics").key == leaky.step("statistics").key
    with pytest.raises(DataError, match=r"400 of \d+ rows of the gate's data are calibration samples too"):
        made(leaky, site)
    assert not site.store.has(leaky.step("leakage").key)


def test_problems_of_hub_data_are_told_with_all_others(
    hub: hubs.Hub, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    file = recipe_with(tmp_path, split="dev")
    document = yaml.safe_load(file.read_text())
    document["calibration"]["data"].append({"path": "absent.csv"})
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(RecipeError) as caught:
        plan_one(load(file)[0], site)
    said = str(caught.value)
    assert "gate.data: acme/tiny@3f1c9a7be2d0: no split 'dev'; name one of train, test" in said
    assert "calibration.data.1: " in said


def test_a_hub_that_refuses_is_named(
    hub: hubs.Hub, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    hub.faults["api"] = [hubs.status(403, X_Error_Code="GatedRepo")]
    with pytest.raises(RecipeError, match="access is gated; accept the terms"):
        plan_one(load(recipe_with(tmp_path))[0], site)


def test_the_network_is_for_the_downloading_steps_only(monkeypatch: pytest.MonkeyPatch):
    from pipeline.process.host import child_env

    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert child_env("dataset")["HF_TOKEN"] == SECRET
    assert "HF_HUB_OFFLINE" not in child_env("dataset") or "HF_HUB_OFFLINE" in os.environ
    for kind in ("calibration_set", "leakage", "baseline"):
        assert "HF_TOKEN" not in child_env(kind)
        assert child_env(kind)["HF_HUB_OFFLINE"] == "1"
