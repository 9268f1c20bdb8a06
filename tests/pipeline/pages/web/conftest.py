"""A registry with three versions, and the application over it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from artifacts.registry.registry import Registry, open_registry
from pipeline.pages.web.registry_view import Reading
from pipeline.pages.web.web_app import application
from tests.pipeline import published

TOKEN = "only-for-these-tests-0123"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The registry's database."""
    return tmp_path / "registry.db"


@pytest.fixture
def registry(file: Path) -> Registry:
    found = open_registry(file)
    published.three(found)
    return found


@pytest.fixture
def reading(file: Path, registry: Registry) -> Reading:
    return Reading(str(file))


class Client:
    """Asks an application without a socket, following nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def ask(self, method: str, address: str, **more: Any) -> httpx.Response:
        """One request."""

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
                return await client.request(method, address, **more)

        return asyncio.run(asked())

    def get(self, address: str, **more: Any) -> httpx.Response:
        """A request that reads."""
        return self.ask("GET", address, **more)


@pytest.fixture
def client(reading: Reading) -> Client:
    """Asks the application over the registry, with no token."""
    return Client(application(reading, TOKEN))


@pytest.fixture
def change(client: Client) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Posts a change with the token; status and answer."""

    def post(what: str, **body: object) -> tuple[int, dict[str, Any]]:
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = client.ask("POST", f"/api/v1/{what}", json=body, headers=headers)
        return answer.status_code, answer.json()

    return post
