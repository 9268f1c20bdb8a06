"""What a card says of a version."""

import dataclasses
from collections.abc import Callable

import pytest

from pipeline.pages.card import card_content
from pipeline.pages.card.card_content import Card
from pipeline.units import NONE
from tests.pipeline.pages.card.conftest import NOW, signature, waiver
from tests.pipeline.published import FACTS


def said(card: Card):
    """Notices as (tone, text)."""
    return [(one.tone, one.text) for one in card_content.notices(card)]


def test_of_a_version_that_passed_only_who_signed_it_is_said(card: Callable[..., Card]):
    assert said(card(signatures=(signature(),))) == [
        ("info", "signed by ana@ops on 2026-11-21, key key-of-ana")
    ]


def test_what_is_in_the_way_is_said_worst_first(card: Callable[..., Card]):
    found = card(waivers=(waiver(), waiver("over", days=-1)), read={"problems": ("the disk is gone",)})
    record = dataclasses.replace(
        found.record,
        collected_at=NOW,
        origin="imported",
        verdict="UNVERIFIED",
        facts=FACTS | {"scored": "twin", "measured": "without drafts"},
    )
    tones, texts = zip(*said(dataclasses.replace(found, record=record)), strict=True)
    assert list(zip(tones, texts, strict=True)) == [
        ("bad", "gc removed its files on 2026-11-21: it cannot be pulled; build its recipe again"),
        ("bad", "the disk is gone"),
        ("warn", "UNVERIFIED: imported, built elsewhere; no accuracy gate has scored it"),
        (
            "warn",
            "max_age_days waived for @prod until 2026-11-24 12:00 UTC by ana@ops: re-gating is queued",
        ),
        ("info", "not signed"),
        ("info", "over: max_age_days waived for @prod until 2026-11-20 12:00 UTC by ana@ops: over"),
        ("info", "the scores are of the engine's twin in twin/, built to be scored"),
        ("info", "the speed was measured without drafts"),
    ]


def test_a_verdict_that_is_not_pass_is_bad(card: Callable[..., Card]):
    found = card()
    failed = dataclasses.replace(found, record=dataclasses.replace(found.record, verdict="FAIL"))
    assert ("bad", "the accuracy verdict is FAIL, not PASS") in said(failed)


def test_needs_and_limits(card: Callable[..., Card]):
    gpu = {"name": "NVIDIA H200", "sm": 90, "driver": "570.1"}
    facts = FACTS | {"device": "cuda", "gpus": [gpu, gpu], "sm": 90, "toolchain": {"tensorrt_llm": "1.2.1"}}
    found = card(facts=facts)
    rows = dict(card_content.built_for(found.record))
    assert rows["hardware"] == "NVIDIA H200"
    assert rows["compute capability"] == "sm_90"
    assert rows["driver"] == "570.1 or later"
    assert rows["toolchain"] == "tensorrt_llm 1.2.1"
    assert rows["memory per rank"] == "5.0 MB: weights and KV cache"
    assert card_content.summary(found.record) == "fp8 · aoti · tp 2, pp 1 · NVIDIA H200"


def test_a_version_of_which_little_is_known_has_a_card_too(card: Callable[..., Card]):
    record = card(facts={}, metrics=[], checks=[], lineage={}, source={}, model="").record
    assert card_content.summary(record) == ""
    assert card_content.built_for(record) == [("ranks", "? (tp ?, pp ?)")]
    assert card_content.accuracy(record) == []
    assert card_content.speeds(record) == []
    assert card_content.in_memory(record) == []


def test_origin_names_the_source_and_its_licence(card: Callable[..., Card]):
    rows = dict(card_content.origin(card()))
    assert (rows["source checkpoint"], rows["revision"]) == ("acme/llama-8b", "a" * 40)
    assert rows["licence of the source"] == "apache-2.0"


def test_what_scored_sequences_begin_with_is_said(card: Callable[..., Card]):
    said = [one.text for one in card_content.notices(card(facts=FACTS | {"sequences_begin_with": "<s>"}))]
    assert "every scored sequence begins with <s>, itself not scored" in said
    assert not any("begins with" in one.text for one in card_content.notices(card(name="llama/other")))


def test_accuracy_has_interval_limit_and_outcome(card: Callable[..., Card]):
    assert card_content.accuracy(card().record) == [
        {"metric": "token KL divergence, nats", "value": "0.02", "interval": "0.018 to 0.022",
         "limit": "0.05", "outcome": "PASS"}
    ]  # fmt: skip


def test_a_check_whose_value_is_not_finite_is_a_row_with_a_dash(card: Callable[..., Card]):
    broken = {"metric": "kl", "value": None, "low": None, "high": None, "limit": 0.1, "outcome": "FAIL"}
    (row,) = card_content.accuracy(card(metrics=[], checks=[broken]).record)
    assert (row["value"], row["interval"], row["limit"], row["outcome"]) == (NONE, NONE, "0.1", "FAIL")


def test_speeds_are_by_batch_and_sizes_by_rank(card: Callable[..., Card]):
    found = card(read={"stored": {"source": 900, "engine": 5}})
    assert [row["batch_size"] for row in card_content.speeds(found.record)] == [1, 4]
    assert card_content.in_memory(found.record) == [
        ("rank 0", 3_000_000, 2_000_000),
        ("rank 1", 3_000_000, 2_000_000),
    ]
    assert card_content.on_disk(found) == [("source checkpoint", 900), ("engine", 6_000_001)]


def test_commands_can_be_pasted_whatever_the_name(card: Callable[..., Card]):
    found = card()
    assert card_content.commands(found.record)[0] == "enginery pull llama/fp8_tp2:1 ./engine"
    hostile = dataclasses.replace(found.record, name="x; rm -rf $HOME")
    assert card_content.commands(hostile)[0] == "enginery pull 'x; rm -rf $HOME:1' ./engine"
    served = dataclasses.replace(found.record, facts=FACTS | {"backend": "trtllm_torch"})
    assert "--to trtllm-serve" in card_content.commands(served)[2]


@pytest.mark.parametrize(("number", "count"), [(1, 2), (2, 0)])
def test_events_are_of_a_version_when_they_name_it(card: Callable[..., Card], number: int, count: int):
    assert sum(card_content.concerns(event, number) for event in card().events) == count
