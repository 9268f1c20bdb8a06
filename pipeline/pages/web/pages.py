"""The pages: server-rendered, without scripts, every value escaped by the templates."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from jinja2 import Environment
from markupsafe import Markup

from artifacts.finding.compare import NOTES
from artifacts.registry.telling import describe_event
from artifacts.version import VersionRecord, parse_reference
from pipeline.pages.card import card_markdown, card_page, card_plots
from pipeline.pages.web import security
from pipeline.pages.web.api import Offset, Seq, Text
from pipeline.pages.web.comparison_page import sections
from pipeline.pages.web.odd_rows import on_page
from pipeline.pages.web.paged_lists import Wanted
from pipeline.pages.web.registry_view import Reading
from pipeline.units import ago

PER_PAGE = 50
MOST_WAIVERS = 20
"""Shown on the first page."""


@cache
def templates() -> Environment:
    """Templates of the pages."""
    environment = card_page.environment(Path(__file__).parent / "templates")
    environment.filters.update(link=link, said=describe_event)
    return environment


def link(reference: str) -> str:
    """Address of a name or a version."""
    return f"/engines/{quote(reference, safe='/:@')}"  # '/', ':' and '@' are parts of a reference


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page."""
    # one moment for all times on a page
    now = datetime.now(UTC)
    page = templates().get_template(template)
    return HTMLResponse(page.render(ago=lambda at: ago(at, now), now=now, odd=on_page(), **values), status)


def router(reading: Reading) -> APIRouter:
    """Every page over one registry."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    _lists(routes, reading)
    _comparison(routes, reading)
    _one(routes, reading)
    return routes


def _lists(routes: APIRouter, reading: Reading) -> None:
    @routes.get("/")
    def home(offset: Offset = 0) -> Response:
        total, rows = reading.engines(offset=offset, limit=PER_PAGE)
        census = reading.census(datetime.now(UTC))
        recent = reading.events(limit=5)
        waivers = reading.open_waivers()[:MOST_WAIVERS]
        paging = _paging("/", {}, offset, total)
        return render("home.html", rows=rows, census=census, recent=recent, waivers=waivers, paging=paging)

    @routes.get("/find")
    def find(request: Request, offset: Offset = 0) -> Response:
        # the offset is not kept in the links: `_paging` sets its own
        parameters = {
            name: value for name, value in request.query_params.items() if value and name != "offset"
        }
        query = _parse_query(parameters)
        listing = reading.versions(query, offset=offset, limit=PER_PAGE)
        paging = _paging("/find", parameters, offset, listing.total)
        return render("find.html", found=listing, wanted=query, choices=reading.choices(), paging=paging)

    @routes.get("/log")
    def log(name: Text = "", before: Seq = None) -> Response:
        events = reading.events(name, before=before, limit=PER_PAGE)
        older = ""
        # by `seq`, not by offset: new events would move the pages
        if len(events) == PER_PAGE:
            older = f"/log?{urlencode({'name': name, 'before': events[-1].seq})}"
        return render("log.html", events=events, name=name, older=older)


def _comparison(routes: APIRouter, reading: Reading) -> None:
    @routes.get("/compare")
    def side_by_side(a: Text = "", b: Text = "") -> Response:
        if not (a and b):
            return render("compare.html", a=a, b=b, records=())
        records = [reading.resolve(a), reading.resolve(b)]
        comparison = reading.compare(records[0], records[1])
        return render(
            "compare.html",
            a=a,
            b=b,
            records=records,
            summary=comparison.summary,
            sections=sections(comparison),
            notes=NOTES,
            pictures=_pictures(records),
        )


def _one(routes: APIRouter, reading: Reading) -> None:
    @routes.get("/engines/{reference:path}")
    def engine(reference: str, offset: Offset = 0) -> Response:
        target = parse_reference(reference)
        if target.alias is not None:
            exact = reading.resolve(reference).reference
            # 302 and no-store: the alias may point elsewhere the next time
            return RedirectResponse(link(exact), 302, {"cache-control": "no-store"})
        if target.number is None:
            return _name(reading, reference, offset)
        card = reading.card(reference)
        return render("version.html", record=card.record, body=card_page.body(card))

    @routes.get("/cards/{reference:path}")
    def card_file(
        reference: str, as_: Annotated[str, Query(alias="as", pattern="^(html|markdown)$")] = "html"
    ) -> Response:
        card = reading.card(reference)
        if as_ == "markdown":
            return PlainTextResponse(card_markdown.card(card), media_type="text/markdown; charset=utf-8")
        # the file brings its style inside, which the policy of pages refuses
        return HTMLResponse(card_page.card(card), headers={"content-security-policy": security.CARD_POLICY})

    @routes.get("/style.css")
    def style() -> Response:
        return Response(card_page.style(), media_type="text/css", headers={"cache-control": "max-age=300"})


def _name(reading: Reading, name: str, offset: int) -> Response:
    """The page of a name: its aliases, its versions, what happened."""
    # NotFound for a name without versions, rather than an empty page
    reading.resolve(name)
    listing = reading.versions(Wanted(name=name), offset=offset, limit=PER_PAGE)
    events = reading.events(name, limit=PER_PAGE)
    return render(
        "name.html",
        name=name,
        aliases=reading.aliases(name),
        found=listing,
        events=events,
        paging=_paging(link(name), {}, offset, listing.total),
    )


def _pictures(records: list[VersionRecord]) -> dict[str, Any]:
    """Both versions in the same pictures."""
    sizes = [
        (("A", "B")[index], int(bytes_), index)
        for index, record in enumerate(records)
        if (bytes_ := record.metric("size_bytes")) is not None
    ]
    drawn = {
        "accuracy": [Markup(picture) for picture in card_plots.accuracy(records)],
        "speed": [card_page.both(lambda width: card_plots.throughput(records, width))],
        "size": [card_page.both(lambda width: card_plots.bars(sizes, width))],
    }
    return {group: [picture for picture in pictures if picture] for group, pictures in drawn.items()}


def _parse_query(parameters: Mapping[str, str]) -> Wanted:
    """What the form asks for; what makes no sense is left out."""
    tp = parameters.get("tp", "")
    sort: Any = (
        parameters.get("sort") if parameters.get("sort") in ("fastest", "smallest", "closest") else "newest"
    )
    return Wanted(
        text=parameters.get("q", "")[:200],
        # five digits: no engine has more ranks, and `int` refuses a text that is very long
        tp=int(tp) if tp.isdecimal() and len(tp) < 6 else None,
        sort=sort,
        **{name: parameters.get(name, "")[:100] for name in ("format", "backend", "verdict", "origin")},
    )


def _paging(address: str, parameters: Mapping[str, str], offset: int, total: int) -> dict[str, Any]:
    """What the foot of a list says, and where its links lead."""

    def at(place: int) -> str:
        return f"{address}?{urlencode({**parameters, 'offset': place})}"

    last = min(offset + PER_PAGE, total)
    return {
        "said": f"{offset + 1:,} to {last:,} of {total:,}" if total > PER_PAGE else "",
        "newer": at(max(0, offset - PER_PAGE)) if offset > 0 else "",
        "older": at(last) if last < total else "",
    }
