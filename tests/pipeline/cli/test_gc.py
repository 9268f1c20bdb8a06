"""`enginery store gc`: asks before it removes, and says what it keeps for whom."""

import json
import os
import re
from pathlib import Path

import pytest

from artifacts.registry.registry import Publication, open_registry
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from tests.callables import Ask, Cli

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with four versions of one name, built and published long ago, whose files are partly shared."""
    made = open_store(tmp_path / "store")
    for n in range(1, 5):
        key = f"{n:064x}"
        with made.write(key, kind="engine", step={}, host={}) as draft:
            (draft.path / "rank0.bin").write_bytes(bytes([n]) * 100_000)
            (draft.path / "tokenizer.json").write_bytes(b"t" * 50_000)
        for path in (made.path(key), made.path(key) / "manifest.json"):
            os.utime(path, (1e9, 1e9))
        open_registry(made.registry_url).publish(
            Publication(name="demo", engine_key=key, recipe={"n": n}, verdict="PASS", facts={})
        )
    open_registry(made.registry_url).promote("demo", "prod", to=1, expect=None)
    return made


EAGER = ("store", "gc", "--keep-last", "1", "--min-age", "0")


def test_a_collection_is_shown_then_done_and_the_promoted_stays(cli: Cli, store: LocalStore):
    refused = cli("--store", store.root, *EAGER)
    assert refused.returncode == 2
    assert "preview with --dry-run, then give --yes" in refused.stderr
    dry = cli("--store", store.root, *EAGER, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert re.fullmatch(
        r"would free 201\.\d kB \(100\.0 kB more is shared\); versions collected: demo:2, demo:3; "
        r"artifacts that stay: 2 published",
        dry.stdout.splitlines()[-1],
    )
    assert "@prod" in dry.stdout
    assert len(store.keys()) == 4
    done = cli("--store", store.root, "--json", *EAGER, "--yes")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["collected"] == ["demo:2", "demo:3"]
    assert {one["key"] for one in answer["removed"]} == {f"{n:064x}" for n in (2, 3)}
    assert store.keys() == [f"{n:064x}" for n in (1, 4)]
    assert list(map(store.verify, store.keys())) == [[], []]
    assert cli("--store", store.root, "--quiet", *EAGER, "--yes").stdout.strip() == ""


def test_by_default_what_is_young_stays(cli: Cli, store: LocalStore):
    done = cli("--store", store.root, "store", "gc", "--yes")
    assert "published 0.0 days ago" in done.stdout
    assert "versions collected: none; artifacts that stay: 4 published" in done.stdout
    assert len(store.keys()) == 4


OLD = (*EAGER, "--keep-pulled", "0")


def test_what_another_registry_names_stays_and_lineage_goes_when_told(
    ask: Ask, store: LocalStore, tmp_path: Path
):
    source = "f" * 64
    with store.write(source, kind="source", step={}, host={}) as draft:
        (draft.path / "model.bin").write_bytes(b"m" * 1000)
    for path in (store.path(source), store.path(source) / "manifest.json"):
        os.utime(path, (1e9, 1e9))
    lineage = {"source": source, "engine": f"{4:064x}"}
    again = Publication(
        name="other", engine_key=f"{4:064x}", recipe={}, verdict="PASS", facts={}, lineage=lineage
    )
    open_registry(store.registry_url).publish(again)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    named = Publication(name="theirs", engine_key=f"{2:064x}", recipe={}, verdict="PASS", facts={})
    open_registry(other).publish(named)

    def gone(*options: str) -> set[str]:
        code, out, err = ask("--json", *OLD, "--dry-run", *options)
        assert code == 0, err
        return {one["key"] for one in json.loads(out)["removed"]}

    assert gone() == {f"{n:064x}" for n in (2, 3)}
    assert gone("--also", other) == {f"{3:064x}"}
    assert gone("--drop-lineage") == {f"{n:064x}" for n in (2, 3)} | {source}
    assert gone("--keep-last", "3") == set()
    assert len(store.keys()) == 5


def test_litter_is_kept_for_as_long_as_asked(ask: Ask, store: LocalStore):
    log = store.root / "logs" / "old.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("long ago")
    os.utime(log, (1e9, 1e9))
    for days, left in (("1e9", True), ("1", False)):
        assert ask("store", "gc", "--yes", "--litter", days)[0] == 0
        assert log.exists() is left
