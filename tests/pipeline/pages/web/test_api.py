"""The JSON API as programs use it: reading needs nothing, a change needs the token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import NotPublishable, StoreUnusable
from artifacts.registry.registry import Registry
from pipeline.pages.web.web_app import status_of
from tests.pipeline import published
from tests.pipeline.pages.web.conftest import Client
from tests.pipeline.published import NAME


def test_lists_say_how_many_there_are(client: Client):
    engines = client.get("/api/v1/engines").json()
    assert (engines["total"], engines["rows"][0]["name"]) == (1, NAME)
    versions = client.get("/api/v1/versions?text=fp8&sort=fastest&limit=2").json()
    assert (versions["total"], [row["number"] for row in versions["rows"]]) == (3, [1, 2])
    assert versions["rows"][0]["format"] == "fp8"


def test_a_version_is_shown_whole_whichever_way_it_is_meant(client: Client, file: Path):
    published.waive(file, NAME, 2)
    by_alias = client.get(f"/api/v1/versions/{NAME}@prod").json()
    assert by_alias == client.get(f"/api/v1/versions/{NAME}:2").json()
    assert by_alias["version"]["recipe"]["calibration"] == {"seed": 2}
    assert by_alias["version"]["aliases"] == ["prod"]
    assert [one["reason"] for one in by_alias["waivers"]] == ["re-gating is queued"]
    assert by_alias["events"][0]["kind"] == "published"
    assert client.get(f"/api/v1/versions/{NAME}").json()["version"]["number"] == 3


def test_what_is_not_there_is_404_and_says_what_is_near(client: Client, file: Path):
    answer = client.get("/api/v1/versions/llama/fp8_tp3")
    error = answer.json()["error"]
    assert (answer.status_code, error["kind"]) == (404, "NotFound")
    assert "similar names: llama/fp8_tp2" in error["message"]
    assert str(file) not in error["message"], "where the registry is on its host is nobody's business"
    assert client.get("/api/v1/aliases/unknown").status_code == 404
    assert client.get("/api/v1/versions/a%20b").status_code == 404
    assert client.get("/api/v1/nothing").json()["error"]["message"] == "not found: /api/v1/nothing"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/api/v1/find?tpp=2", "tpp: Extra inputs are not permitted"),
        ("/api/v1/versions?limit=501", "limit: Input should be less than or equal to 500"),
        ("/api/v1/versions?offset=-1", "offset: Input should be greater than or equal to 0"),
        ("/api/v1/versions?sort=best", "sort: "),
        ("/api/v1/compare?a=x", "b: Field required"),
    ],
)
def test_what_makes_no_sense_is_422_and_says_why(client: Client, address: str, said: str):
    answer = client.get(address)
    assert answer.status_code == 422
    assert said in answer.json()["error"]["message"]


def test_aliases_answer_what_prod_is_and_where_it_can_go(client: Client):
    prod = next(one for one in client.get(f"/api/v1/aliases/{NAME}").json() if one["alias"] == "prod")
    assert (prod["number"], prod["was"], prod["back"], prod["obstacle"]) == (2, 1, 1, "")
    assert [one["detail"]["now"] for one in prod["moves"]] == [2, 1]
    assert prod["moved_at"].endswith("Z") or prod["moved_at"].endswith("+00:00")


def test_find_keeps_what_loads_and_says_why_not(client: Client):
    found = client.get("/api/v1/find?tp=2&cpu=avx2&torch=2.13.0").json()
    assert [one["reference"] for one in found] == [f"{NAME}:{number}" for number in (1, 2, 3)]
    assert all(one["dropped"] == [] for one in found)
    assert found[0]["metrics"]["tokens_per_s"] == 400
    (one, *_) = client.get("/api/v1/find?cpu=sse2&limit=1").json()
    assert one["dropped"] == ["needs a CPU with avx2; this one has sse2"]


def test_the_log_can_be_followed(
    client: Client, registry: Registry, change: Callable[..., tuple[int, dict[str, Any]]]
):
    last = client.get("/api/v1/events?limit=1").json()[0]["seq"]
    assert client.get(f"/api/v1/events?after={last}").json() == []
    change("promote", reference=f"{NAME}:3", alias="prod", expect=2)
    (event,) = client.get(f"/api/v1/events?after={last}").json()
    assert (event["kind"], event["detail"]["now"]) == ("alias_moved", 3)


def test_a_promotion_is_a_compare_and_swap(
    client: Client, change: Callable[..., tuple[int, dict[str, Any]]], registry: Registry
):
    assert change("promote", reference=f"{NAME}:3", alias="prod", expect=2) == (
        200, {"name": NAME, "alias": "prod", "number": 3, "was": 2}
    )  # fmt: skip
    status, answer = change("promote", reference=f"{NAME}:1", alias="prod", expect=2)
    assert (status, answer["error"]["kind"]) == (409, "AliasMoved")
    assert change("promote", reference=f"{NAME}:9", alias="prod", expect=3)[0] == 404
    assert change("promote", reference=f"{NAME}:1", alias="new one", expect=None)[0] == 422
    assert change("promote", reference=f"{NAME}:1", alias="prod")[0] == 422, "expect must be said"
    assert change("promote", reference=f"{NAME}@prod", alias="canary", expect=None)[0] == 200
    assert registry.aliases(NAME) == {"candidate": 3, "canary": 3, "prod": 3}


def test_a_rollback_goes_to_where_the_alias_was(
    change: Callable[..., tuple[int, dict[str, Any]]], registry: Registry
):
    assert change("rollback", name=NAME, alias="prod", expect=3)[0] == 409
    assert change("rollback", name=NAME, alias="prod", expect=2) == (
        200, {"name": NAME, "alias": "prod", "number": 1, "was": 2}
    )  # fmt: skip
    assert registry.aliases(NAME)["prod"] == 1


def test_the_api_describes_itself(client: Client):
    schema = client.get("/api/v1/openapi.json").json()
    assert {"/api/v1/promote", "/api/v1/versions/{reference}", "/healthz", "/metrics"} <= schema[
        "paths"
    ].keys()
    assert schema["paths"]["/api/v1/promote"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in schema["paths"]["/api/v1/engines"]["get"]
    assert all(one.get("description") for path in schema["paths"].values() for one in path.values())


def test_errors_have_a_status_each():
    assert status_of(StoreUnusable("x")) == 503
    assert status_of(NotPublishable("x")) == 422
    with pytest.raises(KeyError):
        status_of(KeyError("a bug stays one"))


def test_a_database_that_broke_is_503_for_health_and_0_for_metrics(client: Client, file: Path):
    assert (client.get("/healthz").status_code, client.ask("HEAD", "/healthz").status_code) == (200, 200)
    file.write_bytes(b"this is no database, and it is longer than a header of one" * 9)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "StoreUnusable")
    assert str(file.parent) not in answer.text
    metrics = client.get("/metrics")
    assert (metrics.status_code, "enginery_registry_up 0.0" in metrics.text) == (200, True)
    assert "enginery_names" not in metrics.text
