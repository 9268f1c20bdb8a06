"""The pages in a real browser: what people see, what they can click, and what never runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.registry.registry import open_registry
from pipeline.pages.card import card_page as cards
from pipeline.pages.web.registry_view import Reading
from tests.pipeline import published
from tests.pipeline.pages import browser as chromium
from tests.pipeline.pages.web.test_web_server import serving
from tests.pipeline.published import NAME, publication

pytestmark = pytest.mark.slow

EVIL = "<script>window.pwned=1</script><img/src=x/onerror=window.pwned=1>"

PAGES = {
    "/": "Latest events",
    f"/engines/{NAME}": "Compare 1 with 2",
    f"/engines/{NAME}:2": "Where it comes from",
    f"/compare?a={NAME}:1&b={NAME}:2": "B against A",
    "/log": "published version 3, PASS",
    "/api": "Move an alias",
    f"/find?q={EVIL}": "1 version",
}
"""Address -> words that its page alone has."""

PROBLEMS = """[document.documentElement.scrollWidth > window.innerWidth && 'wider than the window',
window.pwned && 'a script ran', document.scripts.length && 'there is a script',
!document.styleSheets.length && 'no style'].filter(Boolean).join()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a running server, and its registry's file."""
    file = tmp_path_factory.mktemp("site") / "registry.db"
    registry = open_registry(file)
    published.three(registry)
    published.waive(file, NAME, 2, reason=f"re-gating is queued {EVIL}")
    registry.publish(publication("plain", alias="prod", model=EVIL))
    published.rename(file, "plain", EVIL)
    with serving(file) as (_, url):
        yield url, file


@pytest.mark.browser
def test_somebody_on_call_finds_what_prod_is_and_what_it_was(site: tuple[str, Path], page: chromium.Page):
    page.open(site[0])
    page.text_with("names", "open waivers", NAME, "Latest events")
    page.click(f'a[href="/engines/{NAME}"]')
    page.text_with("@prod", "version 2", "was 1", "moved by", "re-gating is queued")
    page.click("#alias-prod summary")
    page.text_with(f"enginery rollback {NAME}@prod --expect 2", "1 → 2")
    page.click('#alias-prod a[href^="/compare"]')
    page.text_with("Compare two versions", "B against A", "better", "worse (-50%)")
    assert page.evaluate(PROBLEMS) == ""


@pytest.mark.browser
def test_a_card_has_its_pictures_and_its_recipe(site: tuple[str, Path], page: chromium.Page):
    page.open(f"{site[0]}/engines/{NAME}:2")
    page.text_with("Token KL divergence, nats", "limit 0.05", "batch 4", "3.0 MB weights + 2.0 MB KV cache")
    drawn = (
        "[...document.querySelectorAll('svg.plot')].filter(e => e.getBoundingClientRect().height > 40).length"
    )
    assert page.evaluate(drawn) == 4
    colour = "getComputedStyle(document.querySelector('.mark.s0')).fill"
    assert page.evaluate(colour) not in ("", "rgb(0, 0, 0)"), "the style sheet reaches the pictures"
    page.click("#recipe summary")
    page.text_with("calibration:\n  seed: 2")


@pytest.mark.browser
def test_search_narrows_and_nothing_hostile_runs(site: tuple[str, Path], page: chromium.Page):
    page.open(f"{site[0]}/find?q=script")
    page.text_with(EVIL, "1 version")
    for address, words in PAGES.items():
        page.open(f"{site[0]}{address}")
        page.text_with(words)
        assert page.evaluate(PROBLEMS) == "", address


@pytest.mark.browser
def test_pages_fit_a_phone(site: tuple[str, Path], page: chromium.Page):
    page.resize(390, 800)
    try:
        for address, words in PAGES.items():
            page.open(f"{site[0]}{address}")
            page.text_with(words)
            assert page.evaluate(PROBLEMS) == "", address
    finally:
        page.resize(1280, 1000)


@pytest.mark.browser
def test_the_card_as_a_file_shows_the_same_without_a_server(
    site: tuple[str, Path], page: chromium.Page, tmp_path: Path
):
    file = tmp_path / "card.html"
    file.write_text(cards.card(Reading(str(site[1])).card(f"{NAME}:2")))
    page.open(file.as_uri())
    page.text_with(f"{NAME}:2", "re-gating is queued", "Token KL divergence, nats", "Use it")
    assert page.evaluate(PROBLEMS) == ""
    page.open(f"{site[0]}/cards/{NAME}:2")
    page.text_with("Use it")
    assert page.evaluate("getComputedStyle(document.querySelector('.panel')).borderRadius") == "10px"
