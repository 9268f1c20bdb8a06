"""The JSON API: what the pages show, and the two changes that a token allows."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from artifacts.finding.listed import Listed
from artifacts.registry.remarks import Notice
from artifacts.version import Event, VersionRecord
from pipeline.pages.card.card_content import notices
from pipeline.pages.web.paged_lists import Engine, Page, Wanted
from pipeline.pages.web.registry_view import AliasNow, Reading

MOST = 2**53
"""The largest number that databases and JavaScript both count to."""

Limit = Annotated[int, Query(ge=1, le=500, description="At most this many.")]
Offset = Annotated[int, Query(ge=0, le=MOST, description="Leave out this many at the beginning.")]
Seq = Annotated[int | None, Query(ge=0, le=MOST, description="`seq` of an event.")]
Text = Annotated[str, Query(max_length=200)]

BEARER = Depends(HTTPBearer(auto_error=False, description="Changes need the server's token."))
"""Documents what `pipeline.pages.web.security.Guard` demands before any of this runs."""


@dataclass(frozen=True, slots=True)
class Engines:
    """A part of the list of names."""

    total: int
    offset: int
    rows: list[Engine]


@dataclass(frozen=True, slots=True)
class Document:
    """A version and its standing."""

    version: dict[str, Any]
    notices: list[Notice]
    """What must be known before it is used, worst first."""
    waivers: list[dict[str, Any]]
    """Those that are open."""
    signatures: list[dict[str, Any]]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A version of a search by host; the reasons are empty where it suits."""

    reference: str
    dropped: tuple[str, ...]
    metrics: dict[str, float]


class Strict(BaseModel):
    """Parameters of which none is unknown."""

    model_config = ConfigDict(extra="forbid")


class Host(Strict):
    """What is asked of versions, and what the host has that should load them."""

    name: str | None = None
    backend: str | None = None
    format: str | None = None
    dtype: str | None = None
    kv_cache: str | None = None
    target: str | None = None
    tp: int | None = None
    pp: int | None = None
    world_size: int | None = None
    max_batch_size: int | None = Field(None, description="At least.")
    max_seq_len: int | None = Field(None, description="At least.")
    cpu: list[str] | None = Field(None, description="Vector sets of the host, e.g. avx2.")
    gpus: list[str] | None = Field(None, description="Name of each GPU of the host.")
    sm: list[int] | None = Field(None, description="Compute capabilities times ten.")
    driver: str | None = None
    torch: str | None = None
    tensorrt_llm: list[str] | None = None
    tensorrt: list[str] | None = None
    memory_bytes: int | None = Field(None, description="Per rank.")
    rank: Literal["speed", "size"] = "speed"
    limit: int = Field(100, ge=1, le=500)


class Promotion(Strict):
    """Which version an alias should point at."""

    reference: str = Field(max_length=300, description="NAME:NUMBER or NAME@ALIAS.")
    alias: str = Field(pattern=r"^[^@:\s]{1,64}$")
    expect: int | None = Field(description="Version it points at now; null where it does not exist yet.")


class Rollback(Strict):
    """Which alias should go back to where it was."""

    name: str = Field(max_length=200)
    alias: str = Field(max_length=64)
    expect: int = Field(description="Version it points at now.")


class Moved(BaseModel):
    """What an alias points at now."""

    name: str
    alias: str
    number: int
    was: int | None


def router(reading: Reading) -> APIRouter:
    """Every route of the API over one registry."""
    routes = APIRouter(prefix="/api/v1")
    _reads(routes, reading)
    _more_reads(routes, reading)
    _writes(routes, reading)
    return routes


def _reads(routes: APIRouter, reading: Reading) -> None:
    @routes.get("/engines", tags=["read"])
    def list_engines(q: Text = "", offset: Offset = 0, limit: Limit = 50) -> Engines:
        """Names, those published to last first."""
        total, rows = reading.engines(q, offset=offset, limit=limit)
        return Engines(total, offset, rows)

    @routes.get("/versions", tags=["read"])
    def list_versions(query: Annotated[Wanted, Depends()], offset: Offset = 0, limit: Limit = 50) -> Page:
        """Versions, without their recipes."""
        return reading.versions(query, offset=offset, limit=limit)

    @routes.get("/versions/{reference:path}", tags=["read"])
    def show_version(reference: str) -> Document:
        """One version with all its data: NAME, NAME:NUMBER or NAME@ALIAS."""
        card = reading.card(reference)
        return Document(card.record.as_dict(), notices(card), **card.remarks.as_dict(), events=card.events)

    @routes.get("/aliases/{name:path}", tags=["read"])
    def list_aliases(name: str) -> list[AliasNow]:
        """Where every alias of a name points, since when, who moved it, and where it was before."""
        # NotFound, with similar names, instead of an empty list for a name that is mistyped
        reading.resolve(name)
        return reading.aliases(name)


def _more_reads(routes: APIRouter, reading: Reading) -> None:
    @routes.get("/events", tags=["read"])
    def list_events(name: Text = "", before: Seq = None, after: Seq = None, limit: Limit = 50) -> list[Event]:
        """The log, newest first; with `after`, what came since that `seq`, oldest first."""
        return reading.events(name, before=before, after=after, limit=limit)

    @routes.get("/compare", tags=["read"])
    def compare_versions(a: Text, b: Text) -> dict[str, Any]:
        """What differs between two versions, and whether it is more than noise; B is judged against A."""
        return reading.compare(reading.resolve(a), reading.resolve(b)).as_dict()

    @routes.get("/find", tags=["read"])
    def find_for_host(host: Annotated[Host, Query()]) -> list[Found]:
        """Versions that load on a host, best first; then the others, each with its reasons."""
        # not facts of a host: they order the answer and end it
        query = host.model_dump(exclude_none=True, exclude={"rank", "limit"})
        return [
            Found(match.record.reference, match.dropped, _figures(match.record))
            # the search limits what suits; those that do not suit come in addition
            for match in reading.find(query, host.rank, host.limit)[: host.limit]
        ]


def _figures(record: Listed | VersionRecord) -> dict[str, float]:
    if isinstance(record, Listed):
        return dict(record.figures)
    # figures of one batch size would multiply the answer
    return {metric.name: metric.value for metric in record.metrics if "@" not in metric.name}


def _writes(routes: APIRouter, reading: Reading) -> None:
    @routes.post("/promote", tags=["change"], dependencies=[BEARER])
    def promote(request: Promotion) -> Moved:
        """Point an alias at a version, if it still points where `expect` says."""
        record = reading.promote(request.reference, request.alias, expect=request.expect)
        return Moved(name=record.name, alias=request.alias, number=record.number, was=request.expect)

    @routes.post("/rollback", tags=["change"], dependencies=[BEARER])
    def rollback(request: Rollback) -> Moved:
        """Point an alias at its previous version."""
        number = reading.rollback(request.name, request.alias, expect=request.expect)
        return Moved(name=request.name, alias=request.alias, number=number, was=request.expect)
