"""The two forms of a card: complete, deterministic, and deaf to what versions are called."""

import dataclasses
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from pipeline.pages.card import card_markdown, card_page
from pipeline.pages.card.card_content import Card
from tests.pipeline.pages.card.conftest import signature, waiver

HOSTILE = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{1009*1013}}|`*_[x](javascript:alert(1))\nnext"


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data) -> None:
        self.text += data


def hostile(card):
    """A card of which everything that people write is hostile."""
    found = card(
        model=HOSTILE,
        source={"repo": HOSTILE, "revision": HOSTILE, "licence": HOSTILE},
        recipe={"name": HOSTILE, HOSTILE: HOSTILE},
        lineage={HOSTILE: "a" * 64},
        facts={"format": HOSTILE, "backend": HOSTILE, "toolchain": {HOSTILE: HOSTILE}, "scored": HOSTILE},
        checks=[{"metric": HOSTILE, "limit": 1.0, "outcome": HOSTILE}],
        waivers=(waiver(HOSTILE),),
        signatures=(signature(),),
        read={"problems": (HOSTILE,)},
    )
    record = dataclasses.replace(
        found.record, name=HOSTILE, aliases=(HOSTILE,), published_by=HOSTILE, verdict=HOSTILE, origin=HOSTILE
    )
    events = tuple(dataclasses.replace(one, by=HOSTILE, kind=HOSTILE) for one in found.events)
    return dataclasses.replace(found, record=record, events=events)


def test_the_page_needs_nothing_else(card: Callable[..., Card]):
    seen = Seen(card_page.card(card()))
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(seen.tags)
    assert [value for name, value in seen.attributes if name in ("src", "href", "action")] == []
    assert seen.tags.count("svg") == 7, "accuracy; throughput, disk and memory, each for desks and phones"


def test_the_page_allows_its_own_style_and_nothing_more(card: Callable[..., Card]):
    text = card_page.card(card())
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in text
    assert " style=" not in text, "a style attribute would be refused"


def test_the_same_card_is_the_same_bytes(card: Callable[..., Card]):
    found = card()
    assert card_page.card(found) == card_page.card(found)
    assert card_markdown.card(found) == card_markdown.card(found)


def test_hostile_words_stay_words_on_the_page(card: Callable[..., Card]):
    seen = Seen(card_page.card(hostile(card)))
    assert not {"script", "img", "a"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert seen.text.count("<script>alert(1)</script>") > 8
    assert "1022117" not in seen.text


def test_hostile_words_stay_words_in_markdown(card: Callable[..., Card]):
    text = card_markdown.card(hostile(card))
    prose = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", text, flags=re.S | re.M)
    assert not re.search(r"(?<!\\)[<>`]", re.sub(r"^> ", "", prose, flags=re.M))
    assert not re.search(r"(?<!\\)\]\(", prose)
    rows = [line for line in prose.splitlines() if line.startswith("| ") and "alert" in line]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (3, 4, 6) for row in rows), "no cell began another"


@pytest.mark.parametrize("code", ["plain", "a ``` fence", "````` five"])
def test_fences_are_longer_than_what_they_hold(code: str):
    first, *_, last = card_markdown.fenced(code, "yaml").splitlines()
    assert first.rstrip("yaml") == last
    assert last not in code


def test_both_say_what_matters(card: Callable[..., Card]):
    found = card(waivers=(waiver(),), read={"stored": {"source": 12_000_000}})
    for text in (Seen(card_page.card(found)).text, card_markdown.card(found)):
        for words in (
            "llama/fp8_tp2", "PASS", "@prod", "0.018 to 0.022", "12.0 MB", "3.0 MB weights", "apache-2.0",
            "re-gating is queued", "@prod at version 1", "enginery pull llama/fp8_tp2:1 ./engine", "seed: 1",
        ):  # fmt: skip
            assert words in text
