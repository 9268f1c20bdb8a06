"""What Prometheus scrapes parses, counts right and stays small."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from artifacts.registry.registry import open_registry
from tests.pipeline import published
from tests.pipeline.pages.web.conftest import Client
from tests.pipeline.published import NAME, publication


def scraped(client: Client) -> dict[tuple[str | tuple[str, str], ...], float]:
    """(sample, sorted labels) -> value."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_counts_of_the_registry(client: Client, file: Path):
    published.waive(file, NAME, 2)
    published.collect(file, NAME, 2)
    found = scraped(client)
    assert found["enginery_registry_up",] == 1
    assert found["enginery_names",] == 1
    labels = (("origin", "built"), ("verdict", "PASS"))
    assert found["enginery_versions", ("collected", "false"), *labels] == 2
    assert found["enginery_versions", ("collected", "true"), *labels] == 1
    assert found["enginery_events_total", ("kind", "published")] == 3
    assert found["enginery_events_total", ("kind", "refused")] == 0
    assert found["enginery_waivers_open",] == 1
    prod = (("alias", "prod"), ("name", NAME))
    assert found["enginery_alias_version", *prod] == 2
    assert found["enginery_alias_collected", *prod] == 1
    assert found["enginery_alias_moved_timestamp_seconds", *prod] > 1.7e9


def test_requests_are_counted_by_route_and_not_by_name(client: Client):
    for address in ("/", f"/engines/{NAME}:1", f"/engines/{NAME}:2", "/engines/none", "/a", "/b", "/c"):
        client.get(address)
    client.ask("POST", "/api/v1/promote")
    found = scraped(client)
    route = ("route", "/engines/{reference:path}")
    assert found["enginery_http_requests_total", route, ("status", "200")] == 2
    assert found["enginery_http_requests_total", route, ("status", "404")] == 1
    assert found["enginery_http_requests_total", ("route", "none"), ("status", "404")] == 3
    assert found["enginery_http_requests_total", ("route", "none"), ("status", "401")] == 1
    assert found["enginery_http_request_seconds_count", route] == 3
    assert not [one for one in found if "created" in one[0]]


def test_names_that_mean_something_to_prometheus_are_escaped(client: Client, file: Path):
    hostile = 'a"b\\c\nd{}'
    open_registry(file).publish(publication("plain", alias="prod"))
    published.rename(file, "plain", hostile)
    assert scraped(client)["enginery_alias_version", ("alias", "prod"), ("name", hostile)] == 1
