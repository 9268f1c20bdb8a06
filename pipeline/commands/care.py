"""doctor: what this host has, what is missing, and what to do about it."""

import shutil
from typing import Any

import click

from pipeline.app import App


@click.command()
@click.pass_obj
def doctor(app: App) -> None:
    """Say what this host has, what is missing and what to do; exit 4 if a build cannot work.

    Example: enginery doctor
    """
    from pipeline.errors import BackendUnavailable  # pydantic: not for --help
    from pipeline.host import PACKAGES
    from pipeline.output import size

    host = app.site.host
    rows = [
        _row("python", host.tools["python"]),
        *(_row(name, host.tools.get(name), f"pip install {name}") for name in PACKAGES),
        _row("C++ compiler", host.tools.get("c++"), "install g++ (Debian: apt-get install g++)"),
        _row("CPU", f"{host.cores} cores, {host.cpu}"),
        _row("memory", size(host.memory_bytes)),
        _row("GPU", ", ".join(gpu.name for gpu in host.gpus) or "none: engines are built for the CPU"),
        _row("backend aoti", "ready" if {"c++", "torch"} <= host.tools.keys() else None, "torch and g++"),
        _row("backend tensorrt", shutil.which("trtllm-build") or "not built by this version"),
        _store_row(app),
    ]  # fmt: skip
    app.out.rows(rows, id_column="what")
    lacking = [row for row in rows if row["status"] == "missing"]
    if lacking:
        raise BackendUnavailable("; ".join(f"{row['what']}: {row['found']}" for row in lacking))


def _row(what: str, found: str | None, cure: str = "") -> dict[str, Any]:
    return {"what": what, "status": "ok" if found else "missing", "found": found or cure}


def _store_row(app: App) -> dict[str, Any]:
    """Whether the store can be written, by writing."""
    from artifacts.errors import StoreUnusable  # pydantic: not for --help
    from pipeline.output import size

    try:
        app.site.store.prepare()
    except StoreUnusable as exc:
        return _row("store", None, str(exc))
    return _row("store", f"{app.store_url}, {size(app.site.store.free_bytes())} free")
