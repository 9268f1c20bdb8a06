"""Errors of steps name the user's own place, not our copy of what is there; real children."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import StoreUnusable
from artifacts.store.opening import open_store
from pipeline.errors import BuildFailed, SourceError
from pipeline.plan.facts import gather
from pipeline.plan.plan import plan
from pipeline.process.host import probe
from pipeline.sources.snapshot import local_digest
from pipeline.step.realize import Listener, Site, realize
from pipeline.step.step import Step, origins
from pipeline.step.step_parameters import SourceParams, SourcePlaces
from recipes.load import load
from tests.checkpoints import checkpoint, digests, lay
from tests.pipeline.plans import HOST, recipe_file
from tests.pipeline.toy import ToyParams
from tests.pipeline.toy_steps import CHILD

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(store=open_store(tmp_path / "store"), host=probe())


class Complaint(SourceParams, ToyParams):
    """A commit of the hub, and what its toy is asked for."""


def steps(path, **params) -> tuple[Any, ...]:
    """An own copy of a checkpoint, and a step that complains about it."""
    source = Step(
        kind="source",
        inputs={},
        params=SourceParams(digest=local_digest(path, digests)),
        places=SourcePlaces(path=path),
    )
    complaint = Step(
        kind="baseline",
        variant="complain",
        inputs={"source": source.key},
        params=ToyParams(**params),
    )
    own = Step(
        kind="dataset",
        variant="complain",
        inputs={},
        params=Complaint(repo="acme/rows", revision="3f1c9a7be2d0" + "0" * 28, **params),
    )
    known = origins((source, own))
    return tuple(step.traced(known) for step in (source, complaint, own))


def test_a_step_that_reads_a_copy_or_makes_one_names_where_it_is_from(tmp_path: Path, site: Site):
    path = lay(tmp_path / "model", checkpoint())
    source, complaint, own = steps(path)
    realize(source, site, Listener())
    with pytest.raises(SourceError) as caught:
        realize(complaint, replace(site, child=CHILD), Listener())
    assert str(caught.value) == f"{path}/config.json: is broken on purpose; repair it"
    with pytest.raises(SourceError) as caught:
        realize(own, replace(site, child=CHILD), Listener())
    assert str(caught.value) == "acme/rows@3f1c9a7be2d0/config.json: is broken on purpose; repair it"


def test_what_a_crash_leaves_in_the_log_names_it_too(tmp_path: Path, site: Site):
    path = lay(tmp_path / "model", checkpoint())
    source, complaint, _ = steps(path, crash=True)
    realize(source, site, Listener())
    with pytest.raises(BuildFailed) as caught:
        realize(complaint, replace(site, child=CHILD), Listener())
    assert f"RuntimeError: {path}/config.json: crashed on purpose" in str(caught.value)
    assert str(site.store.path(source.key)) not in str(caught.value)


@pytest.mark.parametrize("params", [{"full": True}, {"crash": True}])
def test_what_is_not_wrong_with_the_users_place_is_not_said_of_it(
    params: dict[str, Any], tmp_path: Path, site: Site
):
    *_, own = steps(lay(tmp_path / "model", checkpoint()), **params)
    with pytest.raises((StoreUnusable, BuildFailed)) as caught:
        realize(own, replace(site, child=CHILD), Listener())
    assert "acme/rows@" not in str(caught.value)
    assert f"{tmp_path / 'store'}" in str(caught.value)


def test_every_step_of_a_plan_knows_the_users_place_of_what_it_reads(tmp_path: Path, site: Site):
    (loaded,) = load(recipe_file(tmp_path))
    made = plan(loaded, gather(loaded, HOST, site.store))
    source = made.step("source")
    assert source.origin == loaded.recipe.model.path
    readers = [step for step in made.steps if source.key in (step.key, *step.inputs.values())]
    assert len(readers) > 3
    assert all(step.origins == {source.key: source.origin} for step in readers)
    assert all(step.origins == {} for step in made.steps if step not in readers)
