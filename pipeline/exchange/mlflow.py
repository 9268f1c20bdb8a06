"""An MLflow server, over its REST API: calls, files, and the files of a registered model version.

Files travel through the server (`mlflow server` serves artifacts unless told otherwise), one at a time and
streamed, so that our memory does not depend on their size.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from artifacts.manifest import RESERVED, check_name, check_names
from artifacts.store.disk import ReportFullDisk
from pipeline.errors import ExchangeFailed, ExchangeRefused
from pipeline.exchange.archive import MAX_FILES
from pipeline.exchange.foreign import expected
from pipeline.exchange.pushed_content import IMPORT_COPIES, Progress
from pipeline.exchange.target import RegisteredModel

T = TypeVar("T")

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP answers that another attempt may not get."""

ATTEMPTS = 4

TIMEOUT = httpx.Timeout(120, connect=10)
"""Seconds without a byte; the server may pass a file on to its own store before it answers."""

COPY_BYTES = 1 << 20

PROXIED = "mlflow-artifacts:/"
"""How locations begin that are reached through the server."""


@dataclass(slots=True)
class Server:
    """One MLflow server."""

    address: str
    client: httpx.Client

    def get(self, path: str, /, **query: str) -> dict[str, Any]:
        """Asks; an error is an ExchangeFailed with what MLflow says of it."""
        return self._call("GET", path, params=query)

    def post(self, path: str, /, **values: Any) -> dict[str, Any]:
        """Tells; an error is an ExchangeFailed with what MLflow says of it."""
        return self._call("POST", path, json=values)

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        def once() -> dict[str, Any]:
            response = self.client.request(method, f"{self.address}/api/2.0/{path}", **more)
            self.require(response)
            try:
                # a proxy or another web server may answer with a page, and with success
                answer: dict[str, Any] = response.json()
            except ValueError:
                raise ExchangeFailed(
                    f"{self.address}: no answer of an MLflow server; check the address"
                ) from None
            return answer

        return self.patiently(once)

    def require(self, response: httpx.Response) -> None:
        """Raises MlflowError for an error that MLflow explains, httpx.HTTPStatusError for a transient one."""
        if response.is_success:
            return
        # httpx's own exception is what `patiently` repeats; MlflowError ends the call at once
        if response.status_code in PASSING:
            response.raise_for_status()
        # a streamed body is not in memory yet, and MlflowError looks into it
        response.read()
        raise MlflowError(self.address, response)

    def patiently(self, call: Callable[[], T]) -> T:
        """Calls again, a few times, after failures that may pass."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except (httpx.HTTPStatusError, httpx.RequestError) as exc:
                why = f"HTTP {exc.response.status_code}" if isinstance(exc, httpx.HTTPStatusError) else ""
                if attempt == ATTEMPTS:
                    raise ExchangeFailed(
                        f"{self.address}: {why or type(exc).__name__}, {ATTEMPTS} times in a row; check that "
                        "the MLflow server runs, and push again"
                    ) from None
                # 0.4, 0.8 and 1.6 s
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def upload(self, path: Path, to: str, sent: Callable[[int], None]) -> None:
        """Sends a file to its place among the artifacts; tells the bytes of each piece."""

        def pieces() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(COPY_BYTES):
                    sent(len(chunk))
                    yield chunk

        def once() -> None:
            # an iterator has no length of its own
            length = {"content-length": str(path.stat().st_size)}
            # a new generator for each attempt: a failed one has consumed part of the file
            self.require(self.client.put(self._place(to), content=pieces(), headers=length))

        self.patiently(once)

    def download(self, from_: str, path: Path, size: int, received: Callable[[int], None]) -> None:
        """Writes one artifact of a size to `path`, and no byte more; tells the bytes of each piece."""

        def once() -> None:
            with self.client.stream("GET", self._place(from_)) as response:
                self.require(response)
                # "wb": another attempt starts again with an empty file
                with path.open("wb") as out:
                    for chunk in response.iter_bytes(COPY_BYTES):
                        # a server that sends on and on would fill the disk: only `size` was reserved
                        if out.tell() + len(chunk) > size:
                            raise ExchangeFailed(
                                f"{self.address}: {from_} is listed with {size:,} bytes, and more come"
                            )
                        out.write(chunk)
                        received(len(chunk))

        self.patiently(once)

    def files(self, folder: str) -> dict[str, int]:
        """Name relative to `folder` -> bytes of every artifact below it."""
        sizes, open_ = {}, [""]
        while open_:
            below = open_.pop()
            path = f"{folder}/{below}".rstrip("/")
            for entry in self.get("mlflow-artifacts/artifacts", path=path).get("files", []):
                name = f"{below}/{entry['path']}" if below else str(entry["path"])
                # before the name is used as a folder to list or a path to write
                _check(name, self.address)
                if entry.get("is_dir"):
                    open_.append(name)
                else:
                    sizes[name] = int(entry.get("file_size", 0))
                # folders count too: a server could list them without end, each below the last
                if len(sizes) + len(open_) > MAX_FILES:
                    raise ExchangeRefused(
                        f"{self.address}: more than {MAX_FILES:,} files, the most that an import takes"
                    )
        return dict(sorted(sizes.items()))

    def _place(self, path: str) -> str:
        return f"{self.address}/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"


class MlflowError(ExchangeFailed):
    """An error that MLflow reports."""

    def __init__(self, address: str, response: httpx.Response) -> None:
        try:
            document = response.json()
        except ValueError:
            document = {}
        self.code = str(document.get("error_code", "")) if isinstance(document, Mapping) else ""
        text = str(document.get("message", "")) if isinstance(document, Mapping) else ""
        hint = "set MLFLOW_TRACKING_TOKEN" if response.status_code in (401, 403) else "check the address"
        super().__init__(f"{address}: HTTP {response.status_code} {self.code}: {text[:500]}; {hint}")


def connect(address: str) -> Server:
    """The server at an address, with the credentials that MLflow's own client takes from the environment."""
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    auth = None if token or not user else (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    return Server(address, httpx.Client(timeout=TIMEOUT, headers=headers, auth=auth))


def fetch(source: RegisteredModel, target: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Downloads a registered version's files into `target`; returns what MLflow says of the version."""
    if source.model is None:
        raise ExchangeRefused(f"mlflow:{source.address} names no model; give #MODEL/NUMBER or #MODEL@ALIAS")
    server = connect(source.address)
    with server.client:
        version = _version(server, source)
        folder = location(str(version["source"]), source.address)
        files = server.files(folder)
        if not files:
            raise ExchangeRefused(f"mlflow:{source.address}#{source.model}: its version has no files")
        _check_all(files, source.address)
        files = {name: files[name] for name in expected(files, f"{source.address}#{source.model}")}
        done, total = 0, sum(files.values())
        ReportFullDisk(target, f"mlflow:{source.model}", needed_bytes=IMPORT_COPIES * total).require()

        def got(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        for name, size in files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            server.download(f"{folder}/{name}", path, size, got)
            # too many bytes end the download itself; too few are only seen here
            if path.stat().st_size != size:
                raise ExchangeFailed(f"{source.address}: {name}: {path.stat().st_size} of {size} bytes came")
    return version


def _version(server: Server, source: RegisteredModel) -> dict[str, Any]:
    """The version that is meant: by number, by alias, or the newest."""
    name = str(source.model)
    if source.alias is not None:
        version_document = server.get("mlflow/registered-models/alias", name=name, alias=source.alias)[
            "model_version"
        ]
    elif source.number is not None:
        version_document = server.get("mlflow/model-versions/get", name=name, version=str(source.number))[
            "model_version"
        ]
    else:
        every = versions(server, name)
        if not every:
            raise ExchangeRefused(f"mlflow:{source.address}#{name}: it has no version; check the name")
        # as text, 9 would be above 10
        version_document = max(every, key=lambda candidate: int(candidate["version"]))
    version: dict[str, Any] = version_document
    return version


def versions(server: Server, name: str) -> list[dict[str, Any]]:
    """Every version of a registered model."""
    # a JSON string is quoted and escaped as the filter needs it
    quoted, documents, page = json.dumps(name), [], ""
    while True:
        more = {"page_token": page} if page else {}
        answer = server.get("mlflow/model-versions/search", filter=f"name={quoted}", **more)
        documents += answer.get("model_versions", [])
        page = answer.get("next_page_token", "")
        if not page:
            return documents


def location(uri: str, address: str) -> str:
    """Path among the server's artifacts; ExchangeRefused for a place that only its own clients reach."""
    if not uri.startswith(PROXIED):
        scheme = uri.partition(":")[0]
        raise ExchangeRefused(
            f"{address}: files are at {scheme}:, which this server does not pass on; start `mlflow server` "
            "with --serve-artifacts and --artifacts-destination"
        )
    return uri.removeprefix(PROXIED).lstrip("/")


def _check_all(names: Iterable[str], address: str) -> None:
    """Refuses names of which one would hide another on some disk."""
    try:
        check_names(name for name in names if name not in RESERVED)
    except ValueError as exc:
        raise ExchangeRefused(f"{address}: {exc}; nothing was imported") from None


def _check(name: str, address: str) -> None:
    """Refuses a listed name that leads out of the directory that it is written to."""
    try:
        if name not in RESERVED:
            check_name(name)
    except ValueError as exc:
        raise ExchangeRefused(f"{address}: {exc}; nothing was imported") from None
