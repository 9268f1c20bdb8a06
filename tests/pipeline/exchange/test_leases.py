"""A collection that comes at the worst moment of an import or a push takes nothing that they need."""

import json
from pathlib import Path

import pytest
from sqlalchemy import insert

from artifacts.client import Client
from artifacts.collection import sweep
from artifacts.collection.marking import Plan, Policy
from artifacts.collection.places import LocalPlace
from artifacts.errors import StoreMismatch
from artifacts.registry import tables
from artifacts.registry.database import open_database
from artifacts.registry.registry import Binding, Publication, Registry, open_registry
from artifacts.registry.retention import Names
from pipeline.exchange import exchange
from pipeline.exchange.pushed_content import Part
from pipeline.process.host import Host
from tests.checkpoints import checkpoint, lay
from tests.pipeline.exchange.conftest import NAME

EAGER = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0)


def collect(client: Client) -> Plan:
    """Removes whatever neither an alias nor a lease keeps."""
    url = client.registry.url
    names = Names(open_database(url), inside=url == client.store.registry_url)
    return sweep.collect(LocalPlace(client.store), names, EAGER)


class Late(Registry):
    """A registry that is reached just after a collection."""

    client: Client

    def publish(self, publication, *, store=None) -> int:
        collect(self.client)
        return super().publish(publication, store=store)


def late(client: Client) -> Client:
    """The client, whose publications come after a collection."""
    found = open_registry(client.registry.url)
    client.registry = Late(found.database, found._verified)
    client.registry.client = client
    return client


def test_what_was_imported_and_is_not_registered_yet_stays(elsewhere: Client, host: Host, tmp_path: Path):
    lay(tmp_path / "checkpoint", checkpoint())
    made = exchange.import_version(str(tmp_path / "checkpoint"), "team/ckpt", late(elsewhere), host)
    assert elsewhere.store.verify(made.key) == []
    assert elsewhere.resolve("team/ckpt").engine_key == made.key
    assert [one.key for one in collect(elsewhere).removed] == [made.key]  # no alias is at it


def test_the_registry_of_an_import_is_remembered_in_the_store(tmp_path: Path, host: Host):
    client = Client(tmp_path / "store", f"sqlite:///{tmp_path / 'other.db'}")
    lay(tmp_path / "checkpoint", checkpoint())
    exchange.import_version(str(tmp_path / "checkpoint"), "team/ckpt", client, host)
    (path,) = (client.store.root / "registries").iterdir()
    assert json.loads(path.read_text())["url"] == client.registry.url
    assert client.registry.bound() == Binding(client.store.id, client.store.url)


@pytest.mark.parametrize("part", ["engine", "checkpoint"])
def test_what_is_being_pushed_stays_when_nobody_points_at_it_any_more(
    client: Client, tmp_path: Path, part: Part
):
    record = client.resolve(NAME)
    plans: list[Plan] = []
    newer = [f"{number:064x}" for number in (2, 3)]
    for number, key in enumerate(newer, 2):
        with client.store.write(key, kind="engine", step={}, host={}) as draft:
            (draft.path / "engine.json").write_text(f"{number}")
        client.registry.publish(
            Publication(
                name=NAME, alias="prod", engine_key=key, recipe={"n": number}, verdict="PASS", facts={}
            )
        )

    def progress(done: int, total: int) -> None:
        if not plans:
            plans.append(collect(client))

    made = exchange.push(f"{NAME}:1", f"oci:{tmp_path / 'layout'}:v1", client, part, progress)
    assert made.what == part
    (plan,) = plans
    assert (plan.removed, plan.kept["leased"]) == ((), len(record.lineage))
    assert {one.key for one in collect(client).removed} == set(record.lineage.values())


def test_nothing_is_pushed_from_a_store_that_the_registry_does_not_mean(
    client: Client, elsewhere: Client, tmp_path: Path
):
    record = client.resolve(NAME)
    other = Client(elsewhere.store.root, client.registry.url)
    with open_database(client.registry.url).writing() as db:
        db.execute(
            insert(tables.store).values(id=client.store.id, url="x", bound_at="2026-01-01T00:00:00+00:00")
        )
    with pytest.raises(StoreMismatch, match="is no store yet; use that store"):
        exchange.push(record.reference, f"hf:{tmp_path / 'repo'}", other, None)
    assert not (tmp_path / "repo").exists()
