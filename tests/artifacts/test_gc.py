"""What a collection decides: nothing needed goes, everything else goes, and the bytes are counted right."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.collection import gc
from artifacts.collection.gc import Plan, Policy, mark
from artifacts.collection.inventory import Artifact, Blob, Inventory, Litter
from artifacts.collection.places import order
from artifacts.registry.retention import Known
from artifacts.store.lease import Claim
from artifacts.store.remote.layout import manifest_path

NOW = datetime(2026, 1, 31, tzinfo=UTC)
KEYS = tuple("abcdefgh")
BLOBS = tuple("12345678")
EAGER = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0)
AGES = st.sampled_from([0.0, 1.0, 6.0, 8.0, 40.0])
"""Days."""


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def version(number: int = 1, key: str = "a", **values: object) -> Known:
    made = {"name": "demo", "lineage": (), "published_at": ago(100)} | values
    return Known(number=number, engine_key=key, **made)


def claim(*keys: str, blobs: tuple[str, ...] = ()) -> Claim:
    return Claim(path="leases/x.json", keys=keys, blobs=blobs, what="w", holder="h", ttl_s=60, age_s=0)


def inventory(
    blobs: dict[str, tuple[str, ...]], *, inputs: dict[str, tuple[str, ...]] | None = None, age_days=100.0
):
    artifacts = {
        key: Artifact(
            key=key, kind="engine", inputs=(inputs or {}).get(key, ()), blobs=held, age_s=age_days * gc.DAY_S
        )
        for key, held in blobs.items()
    }
    return Inventory(
        artifacts=artifacts, blobs={id_: Blob(size_bytes=10) for held in blobs.values() for id_ in held}
    )


def removed(plan: Plan) -> set[str]:
    return {one.key for one in plan.removed}


def apply(plan: Plan, held: Inventory) -> Inventory:
    """What is left once a plan is carried out."""
    gone = removed(plan)
    return replace(
        held,
        artifacts={key: one for key, one in held.artifacts.items() if key not in gone},
        blobs={id_: blob for id_, blob in held.blobs.items() if id_ not in plan.blobs},
        litter=tuple(one for one in held.litter if one not in plan.litter),
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
def test_a_version_is_kept_for_the_reasons_of_the_policy(known, policy, reasons):
    assert gc.retained([known], policy, NOW) == ({} if reasons is None else {known: reasons})


def test_the_last_versions_count_per_name_and_without_those_already_collected():
    versions = [version(n, collected=n == 4) for n in range(1, 5)] + [version(1, name="other")]
    kept = gc.retained(versions, replace(EAGER, keep_last=2), NOW)
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
    held.artifacts["a"] = replace(held.artifacts["a"], age_s=gc.DAY_S)
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
    held.blobs["1"] = replace(held.blobs["1"], strangers=1)
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
        return Litter(kind="logs", place=place, size_bytes=1, age_s=days * gc.DAY_S, owners=owners)

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
def test_a_policy_has_no_negative_numbers(value):
    with pytest.raises(ValueError, match="negative or undefined"):
        Policy(min_age_days=value)


INVENTORIES = st.builds(
    lambda made, loose, litter: Inventory(
        artifacts={
            key: Artifact(key=key, kind="k", inputs=tuple(inputs), blobs=tuple(blobs), age_s=days * gc.DAY_S)
            for key, (inputs, blobs, days) in made.items()
        },
        blobs={
            id_: Blob(size_bytes=2 ** int(id_), age_s=loose.get(id_, 99.0) * gc.DAY_S)
            for id_ in {*loose, *(id_ for _, blobs, _ in made.values() for id_ in blobs)}
        },
        litter=tuple(
            Litter(kind="logs", place=f"logs/{n}", size_bytes=1000, age_s=days * gc.DAY_S, owners=(key,))
            for n, (key, days) in enumerate(litter)
        ),
    ),
    st.dictionaries(
        st.sampled_from(KEYS),
        st.tuples(st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(BLOBS)), AGES),
    ),
    st.dictionaries(st.sampled_from(BLOBS), AGES),
    st.lists(st.tuples(st.sampled_from(KEYS), AGES), max_size=3),
)
VERSIONS = st.lists(
    st.builds(
        Known,
        name=st.sampled_from(["x", "y"]),
        number=st.integers(1, 20),
        engine_key=st.sampled_from(KEYS),
        lineage=st.sets(st.sampled_from(KEYS), max_size=3).map(tuple),
        published_at=AGES.map(ago),
        aliases=st.sampled_from([(), (), ("prod",)]),
        formerly=st.sampled_from([(), (), ("prod",)]),
        pulled_at=st.none() | AGES.map(ago),
        collected=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda one: (one.name, one.number),
)
CLAIMS = st.lists(
    st.builds(
        lambda keys, blobs: claim(*keys, blobs=tuple(blobs)),
        st.sets(st.sampled_from(KEYS), max_size=2),
        st.sets(st.sampled_from(BLOBS), max_size=2),
    ),
    max_size=2,
)
POLICIES = st.builds(
    Policy,
    keep_last=st.integers(0, 3),
    keep_pulled_days=AGES,
    min_age_days=AGES,
    litter_days=AGES,
    lineage=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(held=INVENTORIES, versions=VERSIONS, claims=CLAIMS, policy=POLICIES)
def test_nothing_that_is_needed_goes(held, versions, claims, policy):
    plan = mark(held, versions, claims, policy, NOW)
    left = apply(plan, held)
    for one in versions:
        if not one.collected and (one.aliases or one.formerly):
            needed = {one.engine_key, *(one.lineage if policy.lineage else ())}
            assert needed & held.artifacts.keys() <= left.artifacts.keys()
            assert one not in plan.collected
    for one in claims:
        assert set(one.keys) & held.artifacts.keys() <= left.artifacts.keys()
        assert set(one.blobs) & held.blobs.keys() <= left.blobs.keys()
    for one in left.artifacts.values():
        assert set(one.blobs) <= left.blobs.keys()
        if one.age_s < policy.min_age_days * gc.DAY_S or one.key in {key for by in claims for key in by.keys}:
            assert set(one.inputs) & held.artifacts.keys() <= left.artifacts.keys()
    young = {key for key, one in held.artifacts.items() if one.age_s < policy.min_age_days * gc.DAY_S}
    assert young <= left.artifacts.keys()


@settings(max_examples=300, deadline=None)
@given(held=INVENTORIES, versions=VERSIONS, claims=CLAIMS, policy=POLICIES)
def test_what_nobody_needs_goes_once_it_is_old_and_nobody_leases_it(held, versions, claims, policy):
    during = apply(mark(held, versions, claims, policy, NOW), held)
    later = replace(
        during,
        artifacts={key: replace(one, age_s=math.inf) for key, one in during.artifacts.items()},
        blobs={id_: replace(one, age_s=math.inf) for id_, one in during.blobs.items()},
        litter=tuple(replace(one, age_s=math.inf) for one in during.litter),
    )
    left = apply(mark(later, versions, [], policy, NOW), later)
    wanted = gc.retained(versions, policy, NOW)
    reached = {one.engine_key for one in wanted}
    if policy.lineage:
        reached |= {key for one in wanted for key in one.lineage}
    assert left.artifacts.keys() == reached & held.artifacts.keys()
    assert left.blobs.keys() == {id_ for one in left.artifacts.values() for id_ in one.blobs}
    assert all(set(one.owners) & left.artifacts.keys() for one in left.litter)
    assert mark(left, versions, [], policy, NOW).removed == ()


@settings(max_examples=300, deadline=None)
@given(held=INVENTORIES, versions=VERSIONS, claims=CLAIMS, policy=POLICIES)
def test_the_bytes_said_to_be_freed_are_the_bytes_freed(held, versions, claims, policy):
    plan = mark(held, versions, claims, policy, NOW)
    left = apply(plan, held)

    def stored(of: Inventory) -> int:
        return sum(blob.size_bytes for blob in of.blobs.values()) + sum(one.size_bytes for one in of.litter)

    assert stored(held) - stored(left) == plan.freed_bytes
    assert sum(blob.size_bytes for blob in left.blobs.values()) == plan.kept_bytes


@settings(max_examples=300, deadline=None)
@given(held=INVENTORIES, versions=VERSIONS, claims=CLAIMS, policy=POLICIES, more=st.integers(0, 3))
def test_a_more_generous_policy_removes_no_more(held, versions, claims, policy, more):
    generous = replace(policy, keep_last=policy.keep_last + more, min_age_days=policy.min_age_days + more)
    assert removed(mark(held, versions, claims, generous, NOW)) <= removed(
        mark(held, versions, claims, policy, NOW)
    )


@settings(max_examples=300, deadline=None)
@given(held=INVENTORIES, versions=VERSIONS, claims=CLAIMS, policy=POLICIES, cut=st.integers(0, 40))
def test_a_removal_from_a_remote_store_cut_short_anywhere_leaves_no_half(held, versions, claims, policy, cut):
    stored = {
        id_: replace(blob, places=(f"blobs/{id_}.json", f"blobs/{id_}.parts/0", f"blobs/{id_}.parts/1"))
        for id_, blob in held.blobs.items()
    }
    plan = mark(replace(held, blobs=stored), versions, claims, policy, NOW)
    gone = set([path for paths in order(plan) for path in paths][:cut])
    for key, one in held.artifacts.items():
        if manifest_path(key) not in gone:
            assert not gone & {place for id_ in one.blobs for place in stored[id_].places}
    for index, *parts in (blob.places for blob in stored.values()):
        assert index in gone or not gone & set(parts)
