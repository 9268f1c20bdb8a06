"""The pages as a server sends them: what they answer, and that every value is escaped."""

import re
from pathlib import Path

import pytest

from artifacts.registry.registry import Registry, open_registry
from pipeline.pages.web.pages import link
from pipeline.pages.web.registry_view import Reading
from pipeline.pages.web.web_app import application
from tests.pipeline import published
from tests.pipeline.pages.web.conftest import Client
from tests.pipeline.published import NAME, publication


def seen(client: Client, address: str, status: int = 200) -> str:
    """What people read on a page, tags left out."""
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    text = re.sub(r"<[^>]*>", " ", answer.text)
    return re.sub(r"\s+", " ", text)


def test_the_page_of_a_name_answers_the_questions_of_somebody_on_call(
    client: Client, registry: Registry, file: Path
):
    published.waive(file, NAME, 2, reason="the gate set is being replaced")
    text = seen(client, f"/engines/{NAME}")
    by = registry.events(NAME)[-1].by
    assert re.search(
        rf"@prod version 2 was 1 since 20\d\d-\d\d-\d\d \d\d:\d\d UTC \(just now\) moved by {by}", text
    )
    assert f"enginery rollback {NAME}@prod --expect 2" in text
    assert "Compare 1 with 2" in text
    assert "max_age_days waived for @prod until" in text
    assert "the gate set is being replaced" in text
    assert "1 → 2" in text


def test_an_alias_without_a_way_back_says_why(client: Client, file: Path):
    published.collect(file, NAME, 1)
    text = seen(client, f"/engines/{NAME}")
    assert "No rollback: the files of version 1 were collected." in text
    assert text.count("collected") >= 2


def test_an_alias_leads_to_its_version_of_now_and_is_not_remembered(client: Client, registry: Registry):
    answer = client.get(f"/engines/{NAME}@prod")
    assert (answer.status_code, answer.headers["location"]) == (302, f"/engines/{NAME}:2")
    assert answer.headers["cache-control"] == "no-store"
    registry.promote(NAME, "prod", to=3, expect=2)
    assert client.get(f"/engines/{NAME}@prod").headers["location"] == f"/engines/{NAME}:3"


def test_the_first_page_counts_and_warns(client: Client, file: Path):
    published.waive(file, NAME, 2)
    published.collect(file, NAME, 2)
    text = seen(client, "/")
    assert "3 versions, 1 collected" in text
    assert "1 open waivers" in text
    assert f"{NAME}@prod points at version 2, whose files were collected" in text
    assert "re-gating is queued" in text


def test_an_empty_registry_says_what_to_do(tmp_path: Path):
    client = Client(application(Reading(str(tmp_path / "none.db")), None))
    assert "Nothing is published here yet; run a recipe with enginery run RECIPE" in seen(client, "/")
    assert "Nothing yet." in seen(client, "/log")
    assert "No version is so" in seen(client, "/find")
    seen(client, "/engines/any", status=404)


def test_a_version_shows_its_card_and_its_other_forms(client: Client, file: Path):
    published.imported(file, NAME, 2)
    text = seen(client, f"/engines/{NAME}:2")
    assert "UNVERIFIED imported @prod" in text
    assert "imported, built elsewhere" in text
    page = client.get(f"/engines/{NAME}:2").text
    for address in re.findall(r'href="(/(?:cards|api|compare)[^"]+)"', page):
        assert client.get(address.replace("&amp;", "&")).status_code == 200, address
    card = client.get(f"/cards/{NAME}:2")
    assert "sha256-" in card.headers["content-security-policy"]
    assert client.get(f"/cards/{NAME}:2?as=markdown").text.startswith(f"# {NAME}:2\n")
    assert client.get(f"/cards/{NAME}:2?as=pdf").status_code == 422


def test_two_versions_are_compared(client: Client):
    text = seen(client, f"/compare?a={NAME}:1&b={NAME}@candidate")
    assert re.search(r"0.02 \(0.018 to 0.022\) 0.006667 \(0.006 to 0.007333\) better \(-67%\)", text)
    assert "worse (-67%)" in text
    assert "calibration.seed 1 3 differs" in text
    assert f"{NAME}:3 against {NAME}:1: kl better" in text
    assert "No difference: source, toolchain, host and limits." in text
    assert "Two references" in seen(client, "/compare")
    assert "similar names" in seen(client, "/compare?a=llama/fp8&b=x", status=404)


def test_find_keeps_what_was_asked_while_paging(tmp_path: Path):
    registry = open_registry(tmp_path / "registry.db")
    for seed in range(1, 53):
        registry.publish(publication(seed=seed))
    client = Client(application(Reading(str(tmp_path / "registry.db")), None))
    text = client.get("/find?q=llama&sort=closest&tp=2&format=fp8").text
    assert "1 to 50 of 52" in text
    assert "<option selected>closest</option>" in text
    (older,) = re.findall(r'rel="next" href="([^"]+)"', text)
    second = client.get(older.replace("&amp;", "&")).text
    assert "51 to 52 of 52" in second
    assert f"{NAME}</bdi>:2</a>" in second
    assert "52 versions" in seen(client, "/find?tp=x&sort=nonsense"), "what makes no sense asks for nothing"
    assert "1 to 50 of 52" in seen(client, f"/engines/{NAME}")


def test_the_log_goes_back_page_by_page(client: Client, registry: Registry, file: Path):
    for _ in range(30):
        registry.promote(NAME, "prod", to=1, expect=2)
        registry.promote(NAME, "prod", to=2, expect=1)
    text = client.get(f"/log?name={NAME}").text
    assert text.count("<li>") == 50
    (older,) = re.findall(r'rel="next" href="([^"]+)"', text)
    assert client.get(older.replace("&amp;", "&")).text.count("<li>") == 18
    whole = {"at": "2026-11-21T00:00:00+00:00", "name": "", "kind": "policy_set", "by": "x", "detail": "{}"}
    published.insert(file, "event", whole)
    assert "policy set" in seen(client, "/log"), "an event of no name has no link"


HOSTILE = [
    "<script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=1>',
    "{{1009*1013}}",
    "%3Cb%3E&lt;i&gt;",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_their_links_lead_to_them(client: Client, file: Path, name: str):
    name = name.replace(" ", "/")  # with spaces nothing can be referred to
    open_registry(file).publish(publication("plain", alias="prod", model=name))
    published.rename(file, "plain", name)
    published.waive(file, name, 1, reason=name)
    row = {"at": "2026-11-21T00:00:00+00:00", "name": name, "kind": "refused", "by": name,
           "detail": '{"alias": "<script>x</script>", "number": 1, "broken": []}'}  # fmt: skip
    published.insert(file, "event", row)
    for address in (
        "/",
        link(name),
        f"{link(name)}:1",
        f"/find?q={name[:3]}",
        "/log",
        link(name).replace("/engines/", "/cards/") + ":1",
    ):
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert "<script" not in answer.text
        assert "<img" not in answer.text
        assert "1022117" not in answer.text
    assert f'href="{link(name)}"' in client.get("/").text


def test_what_was_searched_for_is_escaped(client: Client):
    evil = '"><script>window.pwned=1</script>'
    for address in ("/find", "/compare", "/log", "/engines/nothing", "/nowhere"):
        params = {"q": evil, "a": evil, "b": "", "name": evil, "format": evil, "sort": evil, "tp": evil}
        assert "<script" not in client.get(address, params=params).text
    assert "<script" not in client.get(f"/engines/{evil}").text
    assert "<script" not in client.get(f"/{evil}").text
