"""Runs and commands over a remote store that several machines share; real children, small builders."""

import json
import shutil
from pathlib import Path

import obstore
import pytest
from click.testing import CliRunner

from artifacts.manifest import MANIFEST
from artifacts.registry.registry import open_registry
from artifacts.store.cached import CachedStore
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.remote import remote_layout
from artifacts.store.sharing import share
from pipeline.cli.boundary import report
from pipeline.cli.main import enginery
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site
from recipes.schema import Recipe
from tests.artifacts.remotes import opened
from tests.pipeline.toy_steps import CHILD, INPUTS, run, toy_plan
from tests.servers.s3 import Bucket, S3Server, environment

RECIPE = {
    "version": 1, "name": "toy", "model": {"path": "model"}, "format": "none",
    "gate": {"data": {"path": "gate.jsonl"}, "limits": {"kl": 0.01}},
}  # fmt: skip


class Heard(Listener):
    """Remembers what was built and moved."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.moved: set[tuple[str, str]] = set()
        self.problems: list[str] = []

    def progressed(self, step, done, total, unit) -> None:
        self.moved |= {(step.kind, unit)} if unit.startswith("bytes") else set()

    def damaged(self, step, problems) -> None:
        self.problems.append(problems)

    def finished(self, made) -> None:
        self.built += [] if made.cached else [made.step.kind]


def machine_run(url: str, root: Path, name: str) -> tuple[CachedStore, Heard, int]:
    """Runs the toy plan as a machine of that name; returns its store, what was heard and what was published."""
    store, heard = CachedStore(opened(url), root / name), Heard()
    plan = toy_plan(Recipe.model_validate(RECIPE), Path("recipe.yaml"))
    registry = open_registry(f"sqlite:///{root / 'registry.db'}")
    return store, heard, run(plan, Site(store=store, host=probe(), child=CHILD), registry, heard).version


@pytest.fixture(scope="module")
def first(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the run of the first machine left: directory of its bucket, directory with its cache and registry."""
    root = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch, s3_server.awake():
        for name, value in environment(s3_server.address).items():
            patch.setenv(name, value)
        path = s3_server.bucket("first-run")
        here, heard, version = machine_run("s3://first-run/team/engines", root, "here")
        assert heard.built == list(INPUTS)
        assert heard.moved == {(kind, "bytes pushed") for kind in INPUTS}
        assert here.remote.keys() == here.local.keys()
        assert version == 1
    return path, root


@pytest.fixture
def here(first: tuple[Path, Path], bucket: Bucket, tmp_path: Path) -> CachedStore:
    """The first machine's store after its run, in a bucket of the test's own."""
    shutil.copytree(first[0], bucket.path, dirs_exist_ok=True)
    shutil.copytree(first[1], tmp_path, dirs_exist_ok=True)
    return CachedStore(opened(bucket.url), tmp_path / "here")


@pytest.fixture
def machine(here: CachedStore, bucket: Bucket, tmp_path: Path):
    """Runs the plan again, as a machine of that name."""
    return lambda name: machine_run(bucket.url, tmp_path, name)


def key_of(store: CachedStore | LocalStore, kind: str) -> str:
    """Key of the artifact of that kind."""
    local = store.local if isinstance(store, CachedStore) else store
    (key,) = (key for key in local.keys() if store.manifest(key).kind == kind)  # noqa: SIM118 no dict
    return key


def test_what_one_machine_built_no_other_builds_or_fetches_in_whole(
    here: CachedStore, machine, tmp_path: Path
):
    there, heard, version = machine("there")
    assert heard.built == []
    assert version == 1
    assert there.local.keys() == []
    fetched = [path.name for path in (there.root / "files").rglob("*.json*") if path.name != MANIFEST]
    assert sorted(fetched) == ["engine.json", "measurement.json", "samples.jsonl", "scores.json"]
    engine = open_registry(f"sqlite:///{tmp_path / 'registry.db'}").resolve("toy")
    assert engine.metric("size_bytes") == here.manifest(engine.engine_key).size_bytes


def test_only_what_is_missing_is_built_from_inputs_that_are_fetched(here: CachedStore, machine):
    key = key_of(here, "engine")
    obstore.delete(here.remote.objects, remote_layout.manifest_path(key))
    there, heard, _ = machine("there")
    assert heard.built == ["engine"]
    assert heard.moved == {("engine", "bytes fetched"), ("engine", "bytes pushed")}
    assert sorted(there.manifest(key).kind for key in there.local.keys()) == [  # noqa: SIM118 no dict
        "engine",
        "sharded_checkpoint",
    ]


def test_what_a_machine_has_but_did_not_push_is_pushed_by_its_next_run(here: CachedStore, machine):
    key = key_of(here, "engine")
    obstore.delete(here.remote.objects, remote_layout.manifest_path(key))
    assert not here.remote.has(key)
    again, heard, _ = machine("here")
    assert heard.built == []
    assert again.remote.verify(key) == []


def test_a_damaged_copy_gives_way_to_the_one_in_the_remote_store(here: CachedStore, machine):
    path = here.path(key_of(here, "evaluation")) / "samples.jsonl"
    path.chmod(0o644)
    path.write_text("?")
    again, heard, version = machine("here")
    assert (heard.built, heard.problems, version) == ([], [], 1)
    assert again.file(key_of(here, "evaluation"), "samples.jsonl").read_text() != "?"
    assert list(map(again.local.verify, again.local.keys())) == [[]] * len(INPUTS)


def call(*argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    result = CliRunner().invoke(enginery, ["--no-color", *argv])
    if result.exception is None or isinstance(result.exception, SystemExit):
        return result.exit_code, result.stdout, result.stderr
    assert isinstance(result.exception, Exception)
    return report(result.exception), result.stdout, f"{result.stderr}{result.exception}"


def test_commands_say_that_a_registry_must_be_named(bucket: Bucket):
    code, _, err = call("--store", bucket.url, "ls")
    assert code == 2
    assert f"no registry is named for the store {bucket.url}; give --registry or $ENGINERY_REGISTRY" in err


def test_a_secret_in_the_stores_url_is_neither_used_nor_printed(capsys: pytest.CaptureFixture[str]):
    code, out, err = call("--store", "s3://AKIA:hidden@bucket/x", "--registry", "sqlite:///none", "ls")
    assert code == 2
    assert "hidden" not in out + err + "".join(capsys.readouterr())


def test_a_version_is_pulled_and_shown_from_a_machine_that_has_nothing(
    here: CachedStore, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    options = ("--store", bucket.url, "--registry", f"sqlite:///{tmp_path / 'registry.db'}")
    code, out, err = call(*options, "pull", "toy", str(tmp_path / "engine"))
    assert code == 0, err
    assert json.loads((tmp_path / "engine" / "engine.json").read_text())["backend"] == "toy"
    assert call("verify", str(tmp_path / "engine"))[0] == 0
    code, out, err = call(*options, "show", key_of(here, "quantized_checkpoint")[:12])
    assert code == 0, err
    assert "linears quantized" in out
    files = (tmp_path / "cache").glob("*/files/*/*")
    assert sorted(path.name for path in files) == ["coverage.json", MANIFEST]
    assert list((tmp_path / "cache").glob("*/objects")) == []


def test_doctor_says_where_store_and_cache_are(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ENGINERY_CACHE_MAX", "5GB")
    _, out, _ = call("--store", bucket.url, "--json", "doctor")
    rows = {row["what"]: row for row in json.loads(out)}
    assert rows["store"]["found"] == f"{bucket.url}, can be read and written"
    assert str(tmp_path / "cache") in rows["cache"]["found"]
    assert "of at most 5.0 GB" in rows["cache"]["found"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    code, _, err = call("--store", bucket.url, "--json", "doctor")
    assert code == 4
    assert "access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in err


def hurt(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.fixture
def options(
    here: CachedStore, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    """How the first machine calls its commands."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    cache = open_store(bucket.url).root
    cache.parent.mkdir(parents=True)
    shutil.move(here.root, cache)
    share(open_store(cache))  # the fixture's copy has no links
    return ("--store", bucket.url, "--registry", f"sqlite:///{tmp_path / 'registry.db'}")


def test_damage_is_named_in_the_cache_and_remotely_and_each_mends_the_other(
    options: tuple[str, ...], here: CachedStore, bucket: Bucket
):
    key, store = (
        key_of(CachedStore(here.remote, open_store(bucket.url).root), "engine"),
        open_store(bucket.url),
    )
    code, out, err = call(*options, "verify", "--all")
    assert code == 0, err
    assert f"in the cache {store.root}: all files are intact" in out
    assert f"in {bucket.url}: all files are intact" in out
    hurt(store.path(key) / "engine.json")
    other = key_of(store, "evaluation")
    far = remote_layout.blob_path(store.manifest(other).files["samples.jsonl"].sha256)
    hurt(bucket.root / far)
    code, _, err = call(*options, "verify", "--all")
    assert code == 1
    assert "2 files of" in err
    assert f"objects/{key[:2]}/{key}/engine.json (and 1 other names): sha256" in err
    assert f"{bucket.url}/{far} has sha256" in err
    assert "in toy:1 (engine)" in err
    code, out, err = call(*options, "store", "repair", "--all")
    assert code == 0, err
    assert f"repaired {far}: {bucket.url} has it from the cache" in err
    assert "engine.json: from the other copy" in err
    assert "2 damaged files repaired" in out
    assert call(*options, "verify", "--all")[0] == 0


def test_what_nobody_has_right_is_given_up_and_built_again_by_the_next_run(
    options: tuple[str, ...], here: CachedStore, bucket: Bucket, tmp_path: Path
):
    store = open_store(bucket.url)
    key = key_of(store, "evaluation")
    hurt(store.path(key) / "samples.jsonl")
    hurt(bucket.root / remote_layout.blob_path(store.manifest(key).files["samples.jsonl"].sha256))
    code, _, err = call(*options, "store", "repair", "--all")
    assert code == 1
    assert "discard the artifacts with --discard" in err
    code, out, err = call(*options, "store", "repair", "--all", "--discard")
    assert code == 0, err
    assert "set aside, to be built again" in out
    assert not open_store(bucket.url).has(key)
    _, heard, version = machine_run(bucket.url, tmp_path, "again")
    assert (heard.built, version) == (["evaluation"], 1)
    assert here.remote.verify(key) == []


def test_gc_of_a_remote_store_says_what_it_would_do_and_does_it(
    options: tuple[str, ...], here: CachedStore, bucket: Bucket, tmp_path: Path
):
    with here.write("f" * 64, kind="engine", step={}, host={}) as draft:
        (draft.path / "rank0.bin").write_bytes(b"f" * 1000)
    shutil.rmtree(bucket.root / "registries")  # the fixture copied the one that it remembers
    eager = ("store", "gc", "--min-age", "0", "--litter", "0")
    dry, done = call(*options, "--json", *eager, "--dry-run"), call(*options, "--json", *eager, "--yes")
    assert (dry[0], done[0]) == (0, 0), done[2]
    said, did = json.loads(dry[1]), json.loads(done[1])
    for plan in (said, did):
        for one in plan["removed"]:
            one.pop("age_s")
    assert {**said, "dry_run": False} == did
    assert [one["key"] for one in did["removed"]] == ["f" * 64]
    assert not here.remote.has("f" * 64)
    assert call(*options, "verify", "toy")[0] == 0
    code, _, err = call("--store", f"{bucket.url}-other", *options[2:], *eager, "--yes")
    assert code == 2
    assert f"names artifacts of store {here.id}" in err
