"""The application: pages, API, health and metrics over one registry."""

from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from artifacts.errors import AliasMoved, NotFound, NotPublishable, StoreUnusable
from pipeline.errors import EXIT_CODES
from pipeline.pages.web import api, pages
from pipeline.pages.web.metrics import CONTENT_TYPE_LATEST, Meter
from pipeline.pages.web.odd_rows import with_odd_rows
from pipeline.pages.web.registry_view import Reading
from pipeline.pages.web.security import Guard, with_heads

STATUS: dict[type[Exception], int] = {
    NotFound: 404, AliasMoved: 409, NotPublishable: 422, StoreUnusable: 503,
}  # fmt: skip
"""What an error of the registry is over HTTP; others by the exit code that the shell would see."""

BY_EXIT_CODE = {1: 409, 2: 400, 3: 422, 4: 503}


def application(reading: Reading, token: str | None) -> ASGIApp:
    """Everything that is served; without a token nothing can be changed."""
    app = FastAPI(
        title="Enginery registry",
        version="1",
        description="Versions, aliases and the log of a registry. Changes need the server's bearer token.",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    meter = Meter(reading)
    _operations(app, reading, meter)
    _failures(app, reading)
    app.include_router(api.router(reading))
    app.include_router(pages.router(reading))
    # the guard is innermost: its refusals are measured like every answer
    return with_heads(meter.around(with_odd_rows(Guard(app, token))))


def _operations(app: FastAPI, reading: Reading, meter: Meter) -> None:
    @app.get("/healthz", tags=["operate"])
    def health() -> dict[str, str]:
        """200 where the registry's database answers, 503 where it does not."""
        reading.require()
        return {"status": "ok"}

    @app.get("/metrics", tags=["operate"])
    def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(meter.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/api", include_in_schema=False)
    def describe() -> Response:
        schema = app.openapi()
        rows = [
            (method.upper(), path, operation.get("summary", ""), operation.get("description", ""))
            for path, methods in schema["paths"].items()
            for method, operation in methods.items()
        ]
        return pages.render("api.html", rows=rows)


def _failures(app: FastAPI, reading: Reading) -> None:
    """Turns every expected error into an answer: JSON below /api, /healthz and /metrics, else a page."""

    async def known(request: Request, exc: Exception) -> Response:
        # clients must not learn where the registry is on this host
        text = "\n".join([str(exc), *getattr(exc, "__notes__", ())])
        message = text.replace(reading.url, "this registry")
        return answer(request, status_of(exc), type(exc).__name__, message)

    async def http(request: Request, exc: Exception) -> Response:
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        return answer(request, status, "Http", f"{HTTPStatus(status).phrase.lower()}: {request.url.path}")

    async def invalid(request: Request, exc: Exception) -> Response:
        errors = exc.errors() if isinstance(exc, RequestValidationError) else ()
        # loc[0] is "query" or "body", which says nothing to a client
        text = "; ".join(f"{'.'.join(map(str, error['loc'][1:]))}: {error['msg']}" for error in errors)
        return answer(request, 422, "Invalid", text)

    handlers: dict[type[Exception], Callable[..., object]] = {
        HTTPException: http, RequestValidationError: invalid, **dict.fromkeys(EXIT_CODES, known)
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)  # type: ignore[arg-type]  # starlette wants one kind each


def status_of(exc: Exception) -> int:
    """The HTTP status of an error that a user can act on."""
    for kind in type(exc).__mro__:
        if kind in STATUS:
            return STATUS[kind]
        if kind in EXIT_CODES:
            return BY_EXIT_CODE[EXIT_CODES[kind]]
    # no error that a user can act on: it stays a bug
    raise exc


def answer(request: Request, status: int, kind: str, message: str) -> Response:
    """An error as JSON below /api, /healthz and /metrics, else as a page."""
    if request.url.path.startswith(("/api/", "/healthz", "/metrics")):
        return JSONResponse({"error": {"kind": kind, "message": message}}, status)
    return pages.render("error.html", status, code=status, phrase=HTTPStatus(status).phrase, message=message)
