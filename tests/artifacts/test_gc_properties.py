"""What holds of every collection: nothing needed goes, all else goes, the bytes are counted right."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.collection import marking
from artifacts.collection.inventory import Artifact, Blob, Inventory, Litter
from artifacts.collection.marking import Plan, Policy, mark
from artifacts.collection.places import order
from artifacts.registry.retention import RetainedVersion
from artifacts.store.remote.remote_layout import manifest_path
from tests.artifacts.marking import NOW, ago, claim, removed

pytestmark = pytest.mark.slow

KEYS = tuple("abcdefgh")
BLOBS = tuple("12345678")
AGES = st.sampled_from([0.0, 1.0, 6.0, 8.0, 40.0])
"""Days."""


def apply(plan: Plan, held: Inventory) -> Inventory:
    """What is left once a plan is carried out."""
    gone = removed(plan)
    return replace(
        held,
        artifacts={key: one for key, one in held.artifacts.items() if key not in gone},
        blobs={id_: blob for id_, blob in held.blobs.items() if id_ not in plan.blobs},
        litter=tuple(one for one in held.litter if one not in plan.litter),
    )


INVENTORIES = st.builds(
    lambda made, loose, litter: Inventory(
        artifacts={
            key: Artifact(
                key=key, kind="k", inputs=tuple(inputs), blobs=tuple(blobs), age_s=days * marking.DAY_S
            )
            for key, (inputs, blobs, days) in made.items()
        },
        blobs={
            id_: Blob(size_bytes=2 ** int(id_), age_s=loose.get(id_, 99.0) * marking.DAY_S)
            for id_ in {*loose, *(id_ for _, blobs, _ in made.values() for id_ in blobs)}
        },
        litter=tuple(
            Litter(kind="logs", place=f"logs/{n}", size_bytes=1000, age_s=days * marking.DAY_S, owners=(key,))
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
        RetainedVersion,
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
        if one.age_s < policy.min_age_days * marking.DAY_S or one.key in {
            key for by in claims for key in by.keys
        }:
            assert set(one.inputs) & held.artifacts.keys() <= left.artifacts.keys()
    young = {key for key, one in held.artifacts.items() if one.age_s < policy.min_age_days * marking.DAY_S}
    assert young <= left.artifacts.keys()


@pytest.mark.slow
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
    wanted = marking.retained(versions, policy, NOW)
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
