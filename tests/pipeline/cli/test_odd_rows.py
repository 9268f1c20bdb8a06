"""An odd value in the registry costs its row, by name, and nothing else: a sample of `odd_rows`."""

import os

import pytest

from tests.pipeline import odd_rows

pytestmark = pytest.mark.slow

CASES = os.environ.get("ENGINERY_ODD_ROWS", "40")
"""How many values are tried; `all` takes as long as `python -m tests.pipeline.odd_rows`."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> odd_rows.Place:
    return odd_rows.make(tmp_path_factory.mktemp("odd"))


def test_the_registry_that_is_damaged_was_sound(place: odd_rows.Place):
    for command in odd_rows.COMMANDS:
        folders = {name: str(place.root / f"right-{name}") for name in ("pulled", "out")}
        done = odd_rows.ask(place, *(part.format(**folders) for part in command))
        refused = command[0] == "export"  # no server's engine
        assert (done.code, "left out" in done.err) == (2 if refused else 0, False), (command, done.err)


def test_no_odd_value_is_a_traceback_or_hides_another_row(place: odd_rows.Place):
    assert not list(odd_rows.tried(place, odd_rows.chosen(CASES)))


def test_an_odd_row_is_named_wherever_it_is_left_out(place: odd_rows.Place):
    name = odd_rows.NAME
    case = odd_rows.Case("version", "verdict", "PASX", "PASX")
    assert not odd_rows.complaints(place, [case])
    odd_rows.lay(place, [case])
    said = f"{name}:2: verdict is 'PASX'; it is one of PASS, UNVERIFIED"
    for command in (
        ("ls", name),
        ("registry", "log", name),
        ("registry", "stale", "--offline", "--all"),
        ("find", "--any-host"),
    ):
        done = odd_rows.ask(place, *command)
        assert (done.code, said in done.err) == (0, True), command
    for command in (
        ("show", f"{name}:2"),
        ("show", f"{name}@prod"),
        ("pull", f"{name}:2", "nowhere"),
        ("diff", f"{name}:1", f"{name}:2"),
        ("promote", f"{name}:2", "prod"),
        ("verify", "--all"),
        ("store", "repair", "--all"),
    ):
        done = odd_rows.ask(place, *command)
        assert (done.code, said in done.err) == (1, True), command
    client = place.clients["one"]
    page = client.get(f"/engines/{name}")
    assert page.status_code == 200
    assert "verdict is &#39;PASX&#39;" in page.text
    assert f"{name}:3" in page.text
    assert said in client.get("/api/v1/versions").headers["enginery-odd-rows"]
    assert client.get(f"/api/v1/versions/{name}:2").status_code == 409


def test_gc_keeps_what_an_odd_row_names_and_everything_where_it_cannot_be_read_which(place: odd_rows.Place):
    key = odd_rows.publication(seed=2).engine_key
    for column, value, alone in (
        ("published_at", "yesterday", True),
        ("lineage", "{", False),
        ("engine_key", "abc", False),
    ):
        case = odd_rows.Case("version", column, value, value)
        odd_rows.lay(place, [case])
        strict = ("--keep-last", "0", "--keep-pulled", "0", "--min-age", "0", "--dry-run")
        done = odd_rows.ask(place, "--json", "store", "gc", *strict)
        assert done.code == 0, done.err
        assert key[:12] not in [one["key"][:12] for one in odd_rows.json.loads(done.out)["removed"]]
        removed = len(odd_rows.json.loads(done.out)["removed"])
        assert (removed > 0) == alone, column
        assert f"{odd_rows.NAME}:2: {column} is" in done.out
