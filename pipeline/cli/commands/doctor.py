"""doctor, toolchains: checks of this host, and its TensorRT-LLM installations."""

import os
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import ADDRESS

if TYPE_CHECKING:
    from pipeline.toolchains.toolchain import Toolchain


@click.command()
@click.option("--server", "url", type=ADDRESS, envvar="PREFECT_API_URL",
              help="Prefect server; default: the one that `up` started from this store.")  # fmt: skip
@click.pass_obj
def doctor(app: App, url: str | None) -> None:
    """Check this host and its Prefect server: what works, what is missing or fails, and what to do.

    Exit 4 if this host cannot build, or the server does not work.

    Example: enginery doctor
    """
    from pipeline.errors import BackendUnavailable  # pydantic: not for --help
    from pipeline.process.host import PACKAGES
    from pipeline.units import size

    host = app.site.host
    rows = [
        _row("python", host.tools["python"]),
        *(_row(name, host.tools.get(name), f"pip install {name}") for name in PACKAGES),
        _row("C++ compiler", host.tools.get("c++"), "install g++ (Debian: apt-get install g++)"),
        _row("CPU", f"{host.cores} cores, {host.cpu}"),
        _row("memory", size(host.memory_bytes)),
        _row("GPU", ", ".join(gpu.name for gpu in host.gpus) or "none: engines are built for the CPU"),
        _row("backend aoti", "ready" if {"c++", "torch"} <= host.tools.keys() else None, "torch and g++"),
        *_toolchain_lines(app),
        _store_row(app),
        *_cache_rows(app),
        *_server_rows(app, url),
    ]  # fmt: skip
    app.out.rows(rows, id_column="what")
    failing = [row for row in rows if row["status"] in ("missing", "failing")]
    if failing:
        raise BackendUnavailable("; ".join(f"{row['what']}: {row['found']}" for row in failing))


@click.command()
@click.pass_obj
def toolchains(app: App) -> None:
    """List the TensorRT-LLM installations of this host, their versions and their problems.

    They are found on PATH, and declared in the file that $ENGINERY_TOOLCHAINS names, else in
    ~/.config/enginery/toolchains.yaml. Exit 4 if none of them works.

    Example: enginery tools toolchains
    """
    from pipeline.errors import BackendUnavailable  # pydantic: not for --help
    from pipeline.toolchains import declared

    toolchains = toolchains_of(app)
    driver = next((gpu.driver for gpu in app.site.host.gpus), None)
    app.out.rows([_toolchain_row(toolchain, driver) for toolchain in toolchains], id_column="name")
    if all(toolchain.problem for toolchain in toolchains):
        raise BackendUnavailable(
            "no TensorRT-LLM works here; put trtllm-build on PATH, or declare an environment or an image "
            f"in {declared.place(os.environ)}"
        )


def toolchains_of(app: App) -> "tuple[Toolchain, ...]":
    """Every toolchain of this host; answers of earlier probes are in the store."""
    from pipeline.toolchains.discovery import discover  # pydantic: not for --help

    return discover(app.site.store.root, os.environ)


def _toolchain_lines(app: App) -> list[dict[str, Any]]:
    """A line per toolchain; one that is broken stops no other build."""
    lines = [
        {
            "what": f"toolchain {toolchain.name}",
            "status": "broken" if toolchain.problem else "ok",
            "found": toolchain.problem or f"TensorRT-LLM {toolchain.version}",
        }
        for toolchain in toolchains_of(app)
    ]
    return lines or [_row("toolchains", "no TensorRT-LLM: see `enginery tools toolchains`")]


def _toolchain_row(toolchain: "Toolchain", driver: str | None) -> dict[str, Any]:
    from pipeline.toolchains.toolchain import BOUND  # with the toolchains

    names = (*BOUND, "cuda", "torch", "python")
    return {
        "name": toolchain.name,
        "kind": toolchain.runtime or toolchain.kind,
        **{name: toolchain.versions.get(name) or None for name in names},
        "driver": driver,
        "where": toolchain.location,
        "problem": toolchain.problem or None,
    }


def _row(subject: str, state: str | None, cure: str = "") -> dict[str, Any]:
    return {"what": subject, "status": "ok" if state else "missing", "found": state or cure}


def _store_row(app: App) -> dict[str, Any]:
    """Whether the store can be written, by writing."""
    from artifacts.errors import StoreUnusable  # pydantic: not for --help
    from pipeline.units import size

    store = app.site.store
    try:
        store.prepare()
    except StoreUnusable as exc:
        return _row("store", None, str(exc))
    free = f", {size(store.free_bytes())} free" if store.local is store else ", can be read and written"
    return _row("store", f"{store.url}{free}")


def _cache_rows(app: App) -> list[dict[str, Any]]:
    """Where the cache of a remote store is and how full; a local store has none."""
    from artifacts.store.cached import CachedStore  # pydantic: not for --help
    from pipeline.units import size

    store = app.site.store
    if not isinstance(store, CachedStore):
        return []
    cache = store.cache
    bound = f" of at most {size(cache.max_bytes)}" if cache.max_bytes is not None else ""
    text = f"{store.root}, {size(cache.held_bytes())}{bound}, {size(store.free_bytes())} free"
    return [_row("cache", text)]


def _server_rows(app: App, url: str | None) -> list[dict[str, Any]]:
    """Whether the Prefect server that was named, or runs from this store, does its work."""
    from pipeline.flows.server_home import Home  # its callers need the store

    home = Home(app.site.store.root)
    started = home.api_url()
    if url is None and started is None:
        return [_row("Prefect server", "none runs from this store; `enginery up` starts one")]
    from pipeline.flows.prefect_server import (
        Prefect,  # Prefect costs a second to import: only where there is a server
    )
    from pipeline.flows.server_watch import inspect_server

    server = Prefect.at(url or str(started))
    # a named server may also be the one of this store
    is_own = server.api_url == started
    rows = [
        {"what": state.what, "status": state.status, "found": state.told}
        for state in inspect_server(server, home.log("server") if is_own else None)
    ]
    if is_own and rows[0]["status"] == "missing":
        rows[0]["found"] += f"; `up` was killed while it ran: without need of it, delete {home.address}"
    return rows
