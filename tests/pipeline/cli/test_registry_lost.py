"""`verify --all`, `repair` and `gc` where the registry of a store is gone, broken, or another program's."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from artifacts.registry.database import connect
from artifacts.registry.registry import Binding, open_registry
from artifacts.store.opening import open_store
from tests.checkpoints import checkpoint, lay
from tests.main_job import write_recipe
from tests.pipeline import odd_rows
from tests.pipeline.odd_rows import Place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> odd_rows.Place:
    return odd_rows.make(tmp_path_factory.mktemp("lost"))


@pytest.fixture
def place(made: odd_rows.Place) -> Iterator[odd_rows.Place]:
    shutil.copy(made.right, made.file)
    yield made
    made.file.unlink(missing_ok=True)


def overwrite(place, begin: int, content: bytes) -> None:
    with place.file.open("r+b") as file:
        file.seek(begin)
        file.write(content)


def sql(place, *statements: str) -> None:
    with closing(sqlite3.connect(place.file)) as db, db:
        for statement in statements:
            db.execute(statement)


def foreign(place) -> None:
    place.file.unlink()
    sql(place, "CREATE TABLE books (title TEXT)")


def unreadable_page(place) -> None:
    size = place.file.stat().st_size
    overwrite(place, 4096, b"\x5a" * (size - 4096))


FATES = {
    "removed": (lambda place: place.file.unlink(), "is missing, or has no tables"),
    "empty": (lambda place: place.file.write_bytes(b""), "is missing, or has no tables"),
    "zeroed": (lambda place: place.file.write_bytes(bytes(place.file.stat().st_size)), "cannot be used: "),
    "text": (lambda place: place.file.write_text("hello\n" * 1000), "cannot be used: file is not a database"),
    "cut": (lambda place: place.file.write_bytes(place.file.read_bytes()[:8192]), "damaged|malformed"),
    "scratched": (unreadable_page, "malformed; restore it from a backup|damaged"),
    "newer": (
        lambda place: sql(place, "UPDATE schema_version SET number = 9"),
        "has schema 9, and this version",
    ),
    "older": (lambda place: sql(place, "UPDATE schema_version SET number = 2"), "enginery registry upgrade"),
    "unnumbered": (lambda place: sql(place, "DELETE FROM schema_version"), "does not say its schema"),
    "foreign": (foreign, "has table 'books' of another program"),
    "beheaded": (lambda place: sql(place, "DROP TABLE event"), "has no table 'event'"),
}


@pytest.mark.parametrize("fate", FATES)
def test_a_registry_that_met_its_fate_is_a_finding_and_no_file_is_called_damaged(
    place: odd_rows.Place, fate: str
):
    happen, said = FATES[fate]
    happen(place)
    before = place.file.read_bytes() if place.file.exists() else None
    done = odd_rows.ask(place, "verify", "--all")
    assert done.code == 1, done
    assert "in the registry:" in done.err
    assert any(part in done.err for part in said.split("|")), done.err
    assert "all files are intact" not in done.out
    done = odd_rows.ask(place, "store", "repair", "--all")
    assert (done.code, "repair cannot restore the registry:" in done.err) == (1, True), done
    assert (place.file.read_bytes() if place.file.exists() else None) == before


def test_gc_does_not_take_a_lost_registry_for_one_that_never_was(place: odd_rows.Place):
    place.file.unlink()
    strict = ("--keep-last", "0", "--keep-pulled", "0", "--min-age", "0", "--yes")
    done = odd_rows.ask(place, "store", "gc", *strict)
    assert done.code == 4
    assert (
        "is missing, or has no tables, but registry.json in the store records that versions were" in done.err
    )
    assert len(place.store.keys()) == 4


def test_a_locked_registry_is_a_finding(place: odd_rows.Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("artifacts.registry.database.BUSY_MS", 100)
    with closing(sqlite3.connect(place.file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = odd_rows.ask(place, "verify", "--all")
    assert (done.code, "database is locked" in done.err) == (1, True)


def test_a_sound_registry_is_counted(place: odd_rows.Place):
    done = odd_rows.ask(place, "verify", "--all")
    assert done.code == 0
    assert "4 versions, " in done.out
    assert "rows of the registry: all rows are intact" in done.out
    answer = json.loads(odd_rows.ask(place, "--json", "verify", "--all").out)
    assert (answer["registry"]["versions"], answer["problems"]) == (4, [])


def test_a_store_that_never_had_a_registry_is_sound(made: odd_rows.Place, tmp_path: Path):
    store = open_store(tmp_path / "store")
    odd_rows.stored(store, odd_rows.publication())
    alone = odd_rows.Place(tmp_path, store)
    done = odd_rows.ask(alone, "verify", "--all")
    assert (done.code, "all files are intact" in done.out) == (0, True), done
    assert not (store.root / "registry.db").exists()
    named = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    assert odd_rows.ask(alone, "--registry", named, "verify", "--all").code == 0


def test_an_engine_that_somebody_removed_is_missed(place: odd_rows.Place, tmp_path: Path):
    key = open_registry(place.file).resolve(f"{odd_rows.NAME}:3").engine_key
    aside = tmp_path / "aside"
    place.store.path(key).rename(aside)
    done = odd_rows.ask(place, "verify", "--all")
    aside.rename(place.store.path(key))
    assert done.code == 1
    assert f"{odd_rows.NAME}:3: its engine {key} is not in the store; build its recipe again" in done.err


def test_an_upgrade_notes_that_the_store_has_a_registry(tmp_path: Path):
    store = open_store(tmp_path / "store")
    store.root.mkdir()
    alone = odd_rows.Place(tmp_path, store)
    dump = odd_rows.Path(__file__).parents[2] / "artifacts" / "schemas" / "2.sqlite.sql"
    with closing(sqlite3.connect(alone.file)) as db:
        db.executescript(dump.read_text())
    assert odd_rows.ask(alone, "registry", "upgrade").code == 0
    assert connect(alone.file).schema() == 3
    alone.file.unlink()
    done = odd_rows.ask(alone, "verify", "--all")
    assert (done.code, "is missing, or has no tables" in done.err) == (1, True)


STRICT = ("--keep-last", "0", "--keep-pulled", "0", "--min-age", "0", "--yes")


def without_row(place, *more: str) -> None:
    """Takes the row of the version that @prod points at, and what else is said."""
    sql(
        place,
        "DROP TRIGGER event_no_delete",
        f"DELETE FROM version WHERE name = '{odd_rows.NAME}' AND number = 2",
    )
    sql(place, *more)


EVENT = f"DELETE FROM event WHERE name = '{odd_rows.NAME}' AND kind = 'published' AND detail LIKE '%\"number\": 2%'"
ALIAS = f"DELETE FROM alias WHERE name = '{odd_rows.NAME}'"
LAST = f"UPDATE series SET last = 1 WHERE name = '{odd_rows.NAME}'"


@pytest.mark.parametrize(
    ("more", "all_stay"),
    [
        ((), False),
        ((ALIAS,), False),
        ((ALIAS, LAST), False),
        ((EVENT,), True),
        ((EVENT, ALIAS), True),
        ((EVENT, LAST), True),
    ],
)
def test_gc_keeps_the_engine_of_a_version_whose_row_is_gone(
    place: odd_rows.Place, more: tuple[str, ...], all_stay: bool
):
    key = open_registry(place.file).resolve(f"{odd_rows.NAME}:2").engine_key
    without_row(place, *more)
    done = odd_rows.ask(place, "--json", "store", "gc", *STRICT, "--dry-run")
    assert done.code == 0, done
    answer = json.loads(done.out)
    removed = {one["key"] for one in answer["removed"]}
    assert key not in removed
    assert not (all_stay and removed), removed
    assert answer["kept"]["kept for an odd or missing row"] >= 1
    said = f"{odd_rows.NAME}:2 is missing in the registry, and {'all artifacts are' if all_stay else 'its engine is'} kept"
    assert any(one.startswith(said) for one in answer["problems"]), answer["problems"]
    done = odd_rows.ask(place, "store", "gc", *STRICT, "--dry-run")
    assert ("kept for an odd or missing row" in done.out, "leased" in done.out) == (True, False), done


def foreign_engine(folder: Path) -> None:
    folder.mkdir()
    lay(folder, checkpoint())


@pytest.mark.parametrize(
    "command",
    [
        ("registry", "init"),
        ("ls",),
        ("ls", odd_rows.NAME),
        (
            "registry",
            "log",
        ),
        ("find", "--any-host"),
        ("pull", f"{odd_rows.NAME}:2", "{root}/pulled"),
        ("registry", "import", "hf:{root}/model", "demo/new"),
        ("registry", "policy", "prod", "--max-age-days", "3"),
        ("run", "{root}/recipe.yaml"),
    ],
)
@pytest.mark.parametrize("fate", ["removed", "empty"])
def test_a_store_whose_registry_is_gone_gets_no_other_without_a_word(
    place: odd_rows.Place, tmp_path: Path, command: tuple[str, ...], fate: str
):
    FATES[fate][0](place)
    foreign_engine(tmp_path / "model")
    write_recipe(tmp_path / "recipe.yaml")
    before = place.file.read_bytes() if place.file.exists() else None
    done = odd_rows.ask(place, *(part.format(root=tmp_path) for part in command))
    assert done.code == 4, done
    assert "is missing, or has no tables, but registry.json in the store records" in done.err
    assert "restore it from a backup, or remove registry.json" in done.err
    assert "nothing is published" not in done.err + done.out
    assert (place.file.read_bytes() if place.file.exists() else None) == before


def test_a_registry_that_was_given_up_is_made_anew(place: odd_rows.Place):
    marker = place.store.root / "registry.json"
    kept = marker.read_bytes()
    place.file.unlink()
    marker.unlink()
    try:
        assert odd_rows.ask(place, "registry", "init").code == 0
        assert "nothing is published" in odd_rows.ask(place, "ls").err
    finally:
        marker.write_bytes(kept)


def remade(place: Place) -> None:
    """What an enginery that did not look for the marker made of a lost registry."""
    place.file.unlink()
    other = place.root / "remade.db"
    other.unlink(missing_ok=True)
    registry = open_registry(other)
    one = odd_rows.publication(seed=1)
    registry.publish(one, store=Binding(place.store.id, place.store.url))
    shutil.move(other, place.file)


def test_a_registry_in_the_place_of_the_one_that_was_published_to_is_a_finding_and_stops_gc(
    place: odd_rows.Place, tmp_path: Path
):
    remade(place)
    done = odd_rows.ask(place, "verify", "--all")
    said = (
        "is not the one that versions of this store were published to (registry.json in the store records it)"
    )
    assert (done.code, said in done.err) == (1, True), done
    keys = place.store.keys()
    done = odd_rows.ask(place, "store", "gc", *STRICT)
    assert (done.code, said in done.err) == (4, True), done
    assert place.store.keys() == keys
    foreign_engine(tmp_path / "model")
    done = odd_rows.ask(place, "registry", "import", f"hf:{tmp_path / 'model'}", "demo/new")
    assert (done.code, said in done.err) == (4, True), done


def test_the_registry_of_another_store_is_a_finding(place: odd_rows.Place):
    sql(place, "UPDATE store SET id = 'another'")
    done = odd_rows.ask(place, "verify", "--all")
    assert done.code == 1
    said = (
        f"names artifacts of store another (first at {place.store.url}), and this is store {place.store.id}"
    )
    assert said in done.err, done.err


@pytest.fixture
def apart(place: odd_rows.Place, tmp_path: Path) -> odd_rows.Place:
    """A copy of the store, whose files may be damaged."""
    shutil.copytree(place.store.root, tmp_path / "store")
    return odd_rows.Place(tmp_path, open_store(tmp_path / "store"))


def damage(place: Place, key: str) -> None:
    for file in (place.store.path(key) / "engine.json", *place.store.root.glob("blobs/*/*")):
        file.chmod(0o644)
        file.write_text("X" * file.stat().st_size)


@pytest.fixture
def with_an_odd_name(apart: odd_rows.Place) -> odd_rows.Place:
    """The only version of a name is odd, and files of another are damaged."""
    sql(apart, f"UPDATE version SET recipe = '[' WHERE name = '{odd_rows.OTHER}'")
    damage(apart, open_registry(apart.file).resolve(f"{odd_rows.NAME}:2").engine_key)
    return apart


def test_an_odd_row_that_is_the_only_version_of_its_name_hides_no_damaged_file(
    with_an_odd_name: odd_rows.Place,
):
    done = odd_rows.ask(with_an_odd_name, "verify", "--all")
    assert done.code == 1
    assert f"{odd_rows.OTHER}:1: recipe is" in done.err
    assert "damaged:" in done.err
    assert f"in {odd_rows.NAME}:2 (engine)" in done.err
    assert done.err.index("in the registry:") < done.err.index("damaged:")


@pytest.mark.slow
def test_an_odd_row_that_is_the_only_version_of_its_name_leaves_the_others_to_stale(
    with_an_odd_name: odd_rows.Place,
):
    done = odd_rows.ask(with_an_odd_name, "registry", "stale", "--offline", "--all")
    assert done.code == 0, done
    assert f"{odd_rows.NAME}:2" in done.out
    assert f"{odd_rows.OTHER}:1: recipe is" in done.err


def test_findings_in_the_registry_are_told_beside_very_many_damaged_files(apart: odd_rows.Place):
    engine = apart.store.path(open_registry(apart.file).resolve(f"{odd_rows.NAME}:3").engine_key)
    engine.chmod(0o755)
    for number in range(300):
        (engine / f"stray{number}").write_text("nobody listed this")
    sql(apart, "UPDATE version SET recipe = '[' WHERE number = 2")
    done = odd_rows.ask(apart, "verify", "--all")
    assert (done.code, f"{odd_rows.NAME}:2: recipe is" in done.err) == (1, True)
    assert ("files of" in done.err, "more lines" in done.err) == (True, False), done.err


def test_repair_of_all_brings_back_lost_engines_that_the_other_copy_has(
    apart: odd_rows.Place, tmp_path: Path
):
    registry = open_registry(apart.file)
    lost, other = (registry.resolve(f"{odd_rows.NAME}:{number}") for number in (2, 3))
    pulled = tmp_path / "pulled"
    assert odd_rows.ask(apart, "pull", lost.reference, str(pulled)).code == 0
    for one in (lost, other):
        shutil.rmtree(apart.store.path(one.engine_key))
    done = odd_rows.ask(apart, "verify", "--all")
    assert (done.code, "enginery store repair --all --from" in done.err) == (1, True), done
    done = odd_rows.ask(apart, "--json", "store", "repair", "--all", "--from", str(pulled))
    assert json.loads(done.out)["brought_back"] == [lost.reference], done
    assert (apart.store.has(lost.address), apart.store.has(other.address)) == (True, False)
    assert apart.store.verify(lost.address) == []
    shutil.rmtree(apart.store.path(lost.engine_key))
    done = odd_rows.ask(apart, "store", "repair", "--all", "--from", str(pulled))
    assert (done.code, "1 lost engine restored" in done.out) == (0, True), done
