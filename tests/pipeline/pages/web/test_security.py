"""Nothing is changed without the token, and a browser is told to trust nothing."""

from pathlib import Path

import pytest

from artifacts.registry.registry import Registry
from pipeline.errors import TokenUnusable
from pipeline.pages.web.registry_view import Reading
from pipeline.pages.web.security import MAX_BODY_BYTES, read_token
from pipeline.pages.web.web_app import application
from tests.pipeline.pages.web.conftest import TOKEN, Client
from tests.pipeline.published import NAME

BODY = {"reference": f"{NAME}:3", "alias": "prod", "expect": 2}
ADDRESS = "/api/v1/promote"


@pytest.mark.slow
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN],
)
def test_a_wrong_token_changes_nothing(client: Client, registry: Registry, header: str | None):
    headers = {} if header is None else {"authorization": header}
    answer = client.ask("POST", ADDRESS, json=BODY, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert registry.aliases(NAME)["prod"] == 2


def test_the_right_token_does(client: Client, registry: Registry):
    answer = client.ask("POST", ADDRESS, json=BODY, headers={"authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200
    assert registry.aliases(NAME)["prod"] == 3


def test_a_server_without_a_token_only_reads(reading: Reading, registry: Registry):
    client = Client(application(reading, None))
    answer = client.ask("POST", ADDRESS, json=BODY, headers={"authorization": "Bearer "})
    assert (answer.status_code, "is read-only" in answer.text) == (403, True)
    assert client.get("/").status_code == 200
    assert registry.aliases(NAME)["prod"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
@pytest.mark.parametrize("address", ["/", ADDRESS, f"/engines/{NAME}", "/nowhere"])
def test_whatever_is_no_reading_needs_the_token(client: Client, method: str, address: str):
    assert client.ask(method, address).status_code == 401


def test_bodies_are_bounded_before_they_are_read(client: Client):
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert (
        client.ask("POST", ADDRESS, content=b"x" * (MAX_BODY_BYTES + 1), headers=headers).status_code == 413
    )
    assert client.ask("POST", ADDRESS, content=b"x" * 100, headers=headers).status_code == 422

    async def endless():
        while True:
            yield b"x" * 65536

    assert client.ask("POST", ADDRESS, content=endless(), headers=headers).status_code == 411


@pytest.mark.slow
@pytest.mark.parametrize("address", ["/", f"/engines/{NAME}:1", "/nowhere", "/api/v1/engines", "/metrics"])
def test_every_answer_has_the_headers(client: Client, address: str):
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_tokens_come_from_a_file_or_the_environment(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file, "ignored-because-of-the-file") == TOKEN
    assert read_token(None, TOKEN) == TOKEN
    assert read_token(None, None) is None
    assert read_token(None, "") is None


@pytest.mark.parametrize(
    "weak", ["", "short", "fifteen-letters", "with spaces in between", "pässwörter-sind-toll"]
)
def test_weak_tokens_are_refused_and_not_repeated(tmp_path: Path, weak: str):
    file = tmp_path / "token"
    file.write_text(weak)
    with pytest.raises(TokenUnusable, match=f"the token in .*token has {len(weak)} characters") as refused:
        read_token(file, None)
    assert not weak or weak not in str(refused.value)


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(TokenUnusable, match="cannot be read"):
        read_token(tmp_path / "none", TOKEN)


@pytest.mark.parametrize(
    "address", ["/find?offset=", "/log?before=", "/api/v1/events?after=", "/api/v1/versions?offset="]
)
def test_numbers_that_no_database_counts_to_are_refused(client: Client, address: str):
    assert client.get(f"{address}{10**30}").status_code == 422
    assert client.get(f"{address}{2**53}").status_code == 200


def test_head_is_answered_where_get_is(client: Client):
    for address in ("/", "/log", "/api/v1/engines", "/healthz", "/nowhere"):
        assert client.ask("HEAD", address).status_code == client.get(address).status_code
    assert client.ask("HEAD", "/api/v1/promote").status_code == 405
