"""What a collection decides about versions, what they were made from, shared bytes and litter."""

import math
from dataclasses import replace

import pytest

from artifacts.collection import marking
from artifacts.collection.inventory import Artifact, Blob, Inventory, Litter
from artifacts.collection.marking import Policy, mark
from artifacts.registry.retention import RetainedVersion
from tests.artifacts.marking import EAGER, NOW, ago, claim, removed, version


def inventory(
    blobs: dict[str, tuple[str, ...]],
    *,
    inputs: dict[str, tuple[str, ...]] | None = None,
    age_days: float = 100.0,
) -> Inventory:
    artifacts = {
        key: Artifact(
            key=key,
            kind="engine",
            inputs=(inputs or {}).get(key, ()),
            blobs=held,
            age_s=age_days * marking.DAY_S,
        )
        for key, held in blobs.items()
    }
    return Inventory(
        artifacts=artifacts, blobs={id_: Blob(size_bytes=10) for held in blobs.values() for id_ in held}
    )


@pytest.mark.parametrize(
    ("known", "policy", "reasons"),
    [
        (version(aliases=("prod",)), EAGER, ("@prod",)),
        (version(formerly=("prod",)), EAGER, ("rollback of @prod",)),
        (version(), replace(EAGER, keep_last=1), ("one of the last 1",)),
        (version(pulled_at=ago(2)), replace(EAGER, keep_pulled_days=3), ("pulled 2.0 days ago",)),
        (version(pulled_at=ago(4)), replace(EAGER, keep_pulled_days=3), None),
        (version(published_at=ago(1)), replace(EAGER, min_age_days=2), ("published 1.0 days ago",)),
        (version(), EAGER, None),
        (version(aliases=("prod",), collected=True), EAGER, None),
    ],
)
def test_a_version_is_kept_for_the_reasons_of_the_policy(
    known: RetainedVersion, policy: Policy, reasons: tuple[str, ...] | None
):
    assert marking.retained([known], policy, NOW) == ({} if reasons is None else {known: reasons})


def test_the_last_versions_count_per_name_and_without_those_already_collected():
    versions = [version(n, collected=n == 4) for n in range(1, 5)] + [version(1, name="other")]
    kept = marking.retained(versions, replace(EAGER, keep_last=2), NOW)
    assert sorted(one.reference for one in kept) == ["demo:2", "demo:3", "other:1"]


def test_what_a_kept_version_was_made_from_stays_unless_the_policy_says_otherwise():
    held = inventory({"a": (), "b": (), "c": (), "d": ()}, inputs={"a": ("b", "tried"), "b": ("c",)})
    published = [version(aliases=("prod",), lineage=("a", "b", "c", "d"))]
    assert removed(mark(held, published, [], EAGER, NOW)) == set()
    lean = mark(held, published, [], replace(EAGER, lineage=False), NOW)
    assert removed(lean) == {"b", "c", "d"}
    assert lean.kept == {"published": 1}


def test_a_young_artifact_stays_with_what_it_was_made_from():
    held = inventory({"a": (), "b": (), "c": ()}, inputs={"a": ("b",)})
    held = replace(held, artifacts={**held.artifacts, "a": replace(held.artifacts["a"], age_s=marking.DAY_S)})
    assert removed(mark(held, [], [], replace(EAGER, min_age_days=2), NOW)) == {"c"}


def test_what_a_lease_needs_stays_however_far_back_also_through_a_version():
    held = inventory({"c": (), "a": (), "b": ()}, inputs={"c": ("a",), "a": ("b",)})
    published = [version(key="a", aliases=("prod",))]
    assert removed(mark(held, published, [claim("c")], EAGER, NOW)) == set()
    assert removed(mark(held, published, [], EAGER, NOW)) == {"b", "c"}


def test_bytes_that_others_share_are_not_freed_and_shared_ones_count_once():
    held = inventory({"a": ("1", "2"), "b": ("2", "3"), "c": ("3", "4")})
    plan = mark(held, [version(key="a", aliases=("prod",))], [], EAGER, NOW)
    assert (removed(plan), set(plan.blobs)) == ({"b", "c"}, {"3", "4"})
    assert (plan.freed_bytes, plan.kept_bytes) == (20, 20)
    assert [one.size_bytes for one in plan.removed] == [20, 20]


def test_bytes_with_a_name_elsewhere_are_not_freed():
    held = inventory({"a": ("1",)})
    held = replace(held, blobs={**held.blobs, "1": replace(held.blobs["1"], strangers=1)})
    assert mark(held, [], [], EAGER, NOW).freed_bytes == 0


def test_versions_go_with_their_engine_and_not_before():
    held = inventory({"a": ("1",)})
    versions = [version(1, "a"), version(2, "a", aliases=("prod",)), version(3, "gone")]
    plan = mark(held, versions, [], EAGER, NOW)
    assert [one.reference for one in plan.collected] == ["demo:3"]
    leased = mark(held, [version(1, "a")], [claim("a")], EAGER, NOW)
    assert (leased.collected, leased.removed) == ((), ())
    last = mark(held, [version(1, "a")], [], EAGER, NOW)
    assert [one.reference for one in last.collected] == ["demo:1"]
    assert last.removed[0].versions == ("demo:1",)


def test_a_kept_version_whose_engine_is_missing_is_a_problem_that_is_said():
    (problem,) = mark(Inventory(), [version(key="a", aliases=("prod",))], [], EAGER, NOW).problems
    assert problem == "demo:1: its engine a is not in the store; build its recipe again"


def test_while_a_manifest_cannot_be_read_no_content_goes():
    held = replace(inventory({"a": ("1",), "b": ("2",)}), problems=("manifests/b.json: changed",))
    plan = mark(held, [], [], EAGER, NOW)
    assert (removed(plan), plan.blobs, plan.freed_bytes) == ({"a", "b"}, {}, 0)
    assert plan.problems == ("manifests/b.json: changed",)


def test_litter_stays_with_its_owner_and_while_it_is_young():
    def litter(place: str, days: float, *owners: str) -> Litter:
        return Litter(kind="logs", place=place, size_bytes=1, age_s=days * marking.DAY_S, owners=owners)

    held = replace(
        inventory({"a": ("1",)}),
        litter=(
            litter("kept", 99, "a"),
            litter("leased", 99, "l"),
            litter("young", 1, "x"),
            litter("old", 99, "x"),
        ),
    )
    policy = replace(EAGER, litter_days=2)
    plan = mark(held, [version(aliases=("prod",))], [claim("l")], policy, NOW)
    assert [one.place for one in plan.litter] == ["old"]
    assert plan.freed_bytes == 1


@pytest.mark.parametrize("value", [-1, math.nan])
def test_a_policy_has_no_negative_numbers(value: float):
    with pytest.raises(ValueError, match="negative or undefined"):
        Policy(min_age_days=value)
