"""What Prometheus scrapes: the registry's counts as it finds them, and how requests fared."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artifacts.errors import StoreUnusable
from artifacts.version import KINDS
from pipeline.pages.web.registry_view import Census, Reading

__all__ = ["CONTENT_TYPE_LATEST", "Meter"]


class RegistryCollector(Collector):
    """Counts of the registry, read anew at every scrape."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def describe(self) -> list[Metric]:
        """Nothing: names are checked without asking the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """`enginery_registry_up`, and the counts where it is 1."""
        up = GaugeMetricFamily("enginery_registry_up", "Whether the registry's database answers.")
        try:
            census = self._reading.census(datetime.now(UTC))
        except StoreUnusable:
            # a scrape must answer also now: it is what tells that the database is away
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _families(census)


def _families(census: Census) -> Iterator[Metric]:
    names = GaugeMetricFamily("enginery_names", "Names that have a version.", census.names)
    versions = GaugeMetricFamily(
        "enginery_versions", "Published versions.", labels=("verdict", "origin", "collected")
    )
    for (verdict, origin, collected), count in census.versions.items():
        versions.add_metric([verdict, origin, str(collected).lower()], count)
    events = CounterMetricFamily("enginery_events", "Events of the log.", labels=("kind",))
    # every kind from the start, so that a first event is a rise and not a new series
    for kind in dict.fromkeys((*KINDS, *census.events)):
        events.add_metric([kind], census.events.get(kind, 0))
    at = GaugeMetricFamily("enginery_alias_version", "Version an alias points at.", labels=("name", "alias"))
    moved = GaugeMetricFamily(
        "enginery_alias_moved_timestamp_seconds", "When an alias was moved.", labels=("name", "alias")
    )
    lost = GaugeMetricFamily(
        "enginery_alias_collected",
        "1 where an alias points at a version whose files were collected.",
        labels=("name", "alias"),
    )
    for name, alias, number, moved_at, collected in census.aliases:
        at.add_metric([name, alias], number)
        moved.add_metric([name, alias], moved_at.timestamp())
        lost.add_metric([name, alias], int(collected))
    waivers = GaugeMetricFamily(
        "enginery_waivers_open", "Waivers that have not expired.", census.waivers_open
    )
    yield from (names, versions, events, at, moved, lost, waivers)


class Meter:
    """Counts and times requests by route, so that names in addresses make no series of their own."""

    def __init__(self, reading: Reading) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series for no use
        # not the process-wide one: each application has its own counts
        self._registry = CollectorRegistry()
        self._registry.register(RegistryCollector(reading))
        self._requests = Counter(
            "enginery_http_requests", "Requests answered.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "enginery_http_request_seconds", "Time to answer.", ("route",), registry=self._registry
        )

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application, measured."""

        async def measured(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            # 500: what an exception leaves behind before an answer began
            status, started = 500, time.perf_counter()

            async def note(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, note)
            finally:
                # addresses without a route share one series
                route = getattr(scope.get("route"), "path", "none")
                self._requests.labels(route, str(status)).inc()
                self._seconds.labels(route).observe(time.perf_counter() - started)

        return measured
