"""Consumers: pulling, and verifying what was pulled."""

import inspect
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import artifacts.client
from artifacts.client import Client
from artifacts.errors import AliasMoved, ArtifactCorrupt, DestinationTaken, NotFound, StoreMismatch
from artifacts.manifest import unseal
from artifacts.registry.registry import Binding, Metric, Publication
from artifacts.store.local import LocalStore
from tests.forked import Forked

FILES = {"engine.json": b"{}", "rank0.bin": os.urandom(50_000), "tuning/cache": b"c"}


@pytest.fixture
def client(store: LocalStore, put: Callable[..., None], key: str) -> Client:
    """A store and registry with one published version."""
    put(key, FILES)
    client = Client(str(store.root))
    client.registry.publish(
        Publication(name="demo/fp8", engine_key=key, recipe={}, verdict="PASS", facts={"tp": 2}, alias="prod",
                    metrics=[Metric("tokens_per_s", 5.0)])
    )  # fmt: skip
    return client


@pytest.mark.parametrize("reference", ["demo/fp8", "demo/fp8:1", "demo/fp8@prod"])
def test_a_pulled_version_is_complete_writable_and_verified(
    client: Client, tmp_path: Path, all_files: Callable[[Path], list[str]], key: str, reference: str
):
    seen = []
    pulled = client.pull(reference, tmp_path / "new" / "engine", progress=lambda *at: seen.append(at))
    assert {name: (pulled / name).read_bytes() for name in FILES} == FILES
    assert all_files(pulled) == sorted(
        [*FILES, "manifest.json", "provenance.json", "signatures.json", "version.json"]
    )
    assert list(pulled.parent.iterdir()) == [pulled]
    version = unseal((pulled / "version.json").read_text(), "version.json")
    assert (version["name"], version["number"], version["key"]) == ("demo/fp8", 1, key)
    assert version["manifest_digest"] == client.store.manifest(key).digest
    assert client.verify(pulled) == client.verify(str(pulled)) == client.verify(reference) == []
    assert seen[-1] == (50_003, 50_003)
    (pulled / "engine.json").write_bytes(b"[]")  # it is the consumer's own now, and the store's stays
    assert client.verify(reference) == []


def test_an_empty_directory_is_pulled_into(client: Client, tmp_path: Path):
    (tmp_path / "engine").mkdir()
    assert client.verify(client.pull("demo/fp8", tmp_path / "engine")) == []


def file(path: Path) -> None:
    path.write_bytes(b"mine")


def full(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_bytes(b"mine")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("occupy", [file, full, dangling])
def test_a_destination_that_holds_something_is_left_alone(
    client: Client, tmp_path: Path, all_files: Callable[[Path], list[str]], occupy
):
    occupy(tmp_path / "engine")
    before = all_files(tmp_path)
    with pytest.raises(DestinationTaken, match="engine is not empty"):
        client.pull("demo/fp8", tmp_path / "engine")
    assert all_files(tmp_path) == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b"x" * 50_000), "rank0.bin has sha256 "),
        (lambda path: path.write_bytes(b"short"), "rank0.bin has sha256 "),
        (lambda path: path.unlink(), "rank0.bin is missing"),
    ],
)
def test_a_damaged_artifact_is_not_pulled(client: Client, tmp_path: Path, key: str, damage, said: str):
    path = client.store.path(key) / "rank0.bin"
    path.chmod(0o644)
    damage(path)
    with pytest.raises(ArtifactCorrupt, match=said):
        client.pull("demo/fp8", tmp_path / "out" / "engine")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_version_without_its_artifact_is_not_pulled(client: Client, tmp_path: Path, key: str):
    client.store.discard(key)
    with pytest.raises(NotFound, match=f"no artifact {key}"):
        client.pull("demo/fp8", tmp_path / "engine")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_a_pulled_directory_is_found_and_named(client: Client, tmp_path: Path, data):
    pulled = tmp_path / "engine"
    if not pulled.exists():
        client.pull("demo/fp8", pulled)
    name = data.draw(st.sampled_from([*FILES, "manifest.json", "version.json"]))
    good = (pulled / name).read_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    (pulled / name).write_bytes(bytes(bad))
    problems = client.verify(pulled)
    assert [problem.partition(":")[0] for problem in problems] == [name]
    (pulled / name).write_bytes(good)


def test_parts_of_two_versions_are_not_one(
    client: Client, put: Callable[..., None], tmp_path: Path, other_key: str
):
    put(other_key, FILES)
    client.registry.publish(
        Publication(name="demo/fp8", engine_key=other_key, recipe={}, verdict="PASS", facts={})
    )
    first, second = client.pull("demo/fp8:1", tmp_path / "1"), client.pull("demo/fp8:2", tmp_path / "2")
    (first / "version.json").write_bytes((second / "version.json").read_bytes())
    (problem,) = client.verify(first)
    assert problem.startswith(f"version.json: is of engine {other_key}")


@pytest.mark.parametrize("name", ["manifest.json", "version.json"])
def test_a_directory_that_was_not_pulled_is_said_to_be_so(client: Client, tmp_path: Path, name: str):
    pulled = client.pull("demo/fp8", tmp_path / "engine")
    (pulled / name).unlink()
    (problem,) = client.verify(Path(pulled))
    assert problem.startswith(f"{name}: missing")


PULLER = """
import sys
from artifacts.client import Client
def progress(done, total):
    if done > 6:  # engine.json and a part of rank0.bin
        print("copying", flush=True)
        input()
Client(sys.argv[1]).pull("demo/fp8", sys.argv[2], progress=progress)
"""


def test_a_killed_pull_leaves_no_engine_and_the_next_one_goes_on(
    client: Client, start: Callable[..., Forked], tmp_path: Path
):
    target = tmp_path / "out" / "engine"
    child = start(PULLER, client.store.root, target)
    assert child.stdout.readline() == "copying\n"
    child.kill()
    child.wait()
    assert not target.exists()
    staging = target.parent / ".engine.fetch"
    copied = staging / "engine.json"
    before = copied.stat()
    (staging / "rank0.bin").write_bytes(b"xyz")  # as a disk may have it after a power cut
    (staging / "of-another-version").write_bytes(b"?")
    assert client.verify(client.pull("demo/fp8", target)) == []
    assert list(target.parent.iterdir()) == [target]
    after = (target / "engine.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_environment_names_the_store(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ENGINERY_STORE", str(client.store.root))
    assert [match.record.number for match in Client().find(tp=2)] == [1]


def test_another_registry_can_be_named(client: Client, tmp_path: Path):
    elsewhere = Client(str(client.store.root), str(tmp_path / "elsewhere.db"))
    assert elsewhere.registry.names() == []


def test_consumers_import_nothing_heavy(run_python: Callable[[str], str]):
    code = "import sys, artifacts.client; print({'torch', 'prefect', 'numpy'} & set(sys.modules))"
    assert run_python(code) == "set()\n"


def test_the_example_of_the_module_runs_as_it_stands(
    client: Client, put: Callable[..., None], other_key: str, tmp_path: Path, start: Callable[..., Forked]
):
    """Its ten lines, with the names of a store and of a directory put in."""
    put(other_key, {**FILES, "engine.json": b"[]"})
    client.registry.publish(
        Publication(name="demo/fp8_tp2", engine_key=client.resolve("demo/fp8").engine_key, recipe={"n": 1},
                    verdict="PASS", facts={"format": "fp8", "tp": 2}, alias="prod")
    )  # fmt: skip
    client.registry.publish(
        Publication(name="demo/fp8_tp2", engine_key=other_key, recipe={"n": 2}, verdict="PASS",
                    facts={"format": "fp8", "tp": 2})
    )  # fmt: skip
    told = (inspect.getdoc(artifacts.client) or "").split("\n\n    ")
    lines = textwrap.dedent("    " + "\n\n    ".join(told[1:]).partition("\n\nEvery error")[0])
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10
    code = lines.replace('"STORE"', repr(str(client.store.root))).replace(
        '"DIRECTORY"', repr(str(tmp_path / "e"))
    )
    out, err = start(code).communicate()
    assert err == ""
    said = out.splitlines()
    assert {"demo/fp8_tp2:1 suits", "demo/fp8_tp2:2 suits"} <= set(said)
    assert said[-2].startswith("demo/fp8_tp2:2 against demo/fp8_tp2:1: ")
    assert said[-1] == "1 ['published', 'alias_moved', 'published', 'alias_moved', 'rolled_back']"
    assert client.verify(tmp_path / "e") == []


def test_every_verb_says_what_it_did(client: Client, put: Callable[..., None], other_key: str):
    put(other_key, {"engine.json": b"[]"})
    client.registry.publish(
        Publication(name="demo/fp8", engine_key=other_key, recipe={}, verdict="PASS", facts={"tp": 4})
    )
    assert client.names() == ["demo/fp8"]
    assert [one.number for one in client.versions("demo/fp8")] == [1, 2]
    assert client.judge("demo/fp8:2", "prod").allowed
    assert client.promote("demo/fp8", "prod", expect=1).aliases == ("prod",)
    with pytest.raises(AliasMoved, match="prod"):
        client.promote("demo/fp8:1", "prod", expect=1)
    with pytest.raises(AliasMoved, match="prod"):
        client.promote("demo/fp8:1", "prod", new=True)
    assert client.promote("demo/fp8:1", "canary", new=True).number == 1
    assert client.aliases("demo/fp8") == {"canary": 1, "prod": 2}
    assert client.compare("demo/fp8:1", "demo/fp8:2").before == "demo/fp8:1"
    assert (client.rollback("demo/fp8@prod", expect=2).now, client.aliases("demo/fp8")["prod"]) == (1, 1)
    assert [move.now for move in client.history("demo/fp8", "prod")] == [1, 2, 1]
    assert [event.kind for event in client.log(newest=1)] == ["rolled_back"]
    with pytest.raises(NotFound, match="names no alias"):
        client.rollback("demo/fp8")
    with pytest.raises(NotFound, match="demo/fp9"):
        client.aliases("demo/fp9")


def test_a_store_whose_registry_is_another_stores_is_neither_read_nor_collected(
    client: Client, tmp_path: Path, key: str
):
    other = Client(str(tmp_path / "other"), client.registry.url)
    client.registry.publish(
        Publication(name="demo/fp8", engine_key=key, recipe={"n": 2}, verdict="PASS", facts={}),
        store=Binding(client.store.id, client.store.url),
    )
    with pytest.raises(StoreMismatch, match="is no store yet; use that store"):
        other.pull("demo/fp8", tmp_path / "engine")
    with other.store.write(key, kind="engine", step={}, host={}) as draft:
        (draft.path / "a").write_bytes(b"a")
    with pytest.raises(StoreMismatch, match=f"names artifacts of store {client.store.id}"):
        other.pull("demo/fp8", tmp_path / "engine")
    assert not (tmp_path / "engine").exists()
    assert client.verify(client.pull("demo/fp8", tmp_path / "engine")) == []


def test_who_may_not_write_the_store_pulls_all_the_same(
    put: Callable[..., None], small_disk: Path, read_only_disk: Callable[[], None], tmp_path: Path, key: str
):
    """Nobody can lease on a disk that can only be read, nor record the pull."""
    store = LocalStore(small_disk / "store")
    put(key, FILES, into=store)
    Client(store.root).registry.publish(
        Publication(name="demo/fp8", engine_key=key, recipe={}, verdict="PASS", facts={}),
        store=Binding(store.id, store.url),
    )
    read_only_disk()
    client = Client(store.root)
    assert client.verify(client.pull("demo/fp8", tmp_path / "engine")) == []
