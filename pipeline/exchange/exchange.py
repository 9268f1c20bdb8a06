"""Pushes a version to another system, and imports from one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.client import Client
from pipeline.errors import ExchangeRefused, SourceError
from pipeline.exchange import hf, mlflow, mlflow_push, modelpack, oci_read, oci_write
from pipeline.exchange.pushed_content import IMPORT_COPIES, Content, Part, Progress, content, working_beside
from pipeline.exchange.register import Adopted, adopt
from pipeline.exchange.target import (
    Directory,
    Layout,
    Repository,
    Target,
    parse,
    parse_source,
)
from pipeline.process.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """The result of a push."""

    what: str
    """`engine` or `checkpoint`."""
    where: str
    """How the place names it."""
    facts: Mapping[str, Any]
    """What else the place says of it."""


def default_part(target: Target) -> Part:
    """What the place is for: repositories of Hugging Face hold checkpoints, the others what is served."""
    return "checkpoint" if isinstance(target, Directory | Repository) else "engine"


def push(
    reference: str, to: str, client: Client, part: Part | None, progress: Progress | None = None
) -> Pushed:
    """Pushes a part of a version; `to` is as `pipeline.exchange.target.parse` reads it."""
    target = parse(to)
    client.require_own_store()
    record = client.resolve(reference)
    read = (record.engine_key, *record.lineage.values())
    # no sweep may delete what is being pushed, or what it was built from
    with client.store.reading(read, f"the push of {record.reference}"):
        return _push(content(record, part or default_part(target), client), target, client, progress)


def _push(content: Content, target: Target, client: Client, progress: Progress | None) -> Pushed:
    if isinstance(target, Directory):
        path = hf.write_directory(content, client, target.path, progress)
        return Pushed(what=content.part, where=str(path), facts={"directory": str(path)})
    if isinstance(target, Repository):
        url = hf.upload(content, client, target, progress)
        return Pushed(what=content.part, where=url, facts={"commit": url})
    if isinstance(target, Layout):
        digest, tag = (
            oci_write.write_layout(content, client, target, progress),
            target.tag or oci_write.default_tag(content),
        )
        where = f"oci:{target.path}:{tag}"
        return Pushed(what=content.part, where=where, facts={"digest": digest, "tag": tag})
    registered = mlflow_push.push(content, client, target, progress)
    where = f"mlflow:{target.address}#{registered.model}/{registered.number}"
    return Pushed(
        what=content.part,
        where=where,
        facts={"model": registered.model, "number": registered.number, "new": registered.new},
    )


def import_version(
    source: str, name: str, client: Client, host: Host, progress: Progress | None = None
) -> Adopted:
    """Imports what is at a place; `source` is as `pipeline.exchange.target.parse_source` reads it."""
    where = parse_source(source)
    with _fetched(where, client, progress) as (directory, origin):
        try:
            return adopt(directory, name, {"from": source, **origin}, client, host)
        except (SourceError, ExchangeRefused) as exc:
            # the user gave `source`; the working directory in the message is gone by then
            raise type(exc)(str(exc).replace(str(directory), source)) from exc


@contextmanager
def _fetched(
    where: Target, client: Client, progress: Progress | None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields a directory with the files of a place, and what the place says of them."""
    if isinstance(where, Directory):
        yield where.path.absolute(), {}
        return
    if isinstance(where, Repository):
        # the cache stays in the store, so that an interrupted download goes on where it stopped
        cache = client.store.root / "hub"
        path, commit = hf.fetch(
            where, cache, lambda done, total, _: progress(done, total) if progress else None
        )
        yield path, {"revision": commit}
        return
    if isinstance(where, Layout):
        packed = oci_read.survey(where)
        with working_beside(client.store.root / "import", IMPORT_COPIES * packed.size_bytes) as draft:
            oci_read.unpack(packed, draft, progress)
            licence = (packed.manifest.get("annotations") or {}).get(modelpack.LICENCES)
            yield draft, {"licence": licence} if licence else {}
        return
    with working_beside(client.store.root / "import") as draft:
        version = mlflow.fetch(where, draft, progress)
        # the push added MLmodel; it is no file of the artifact, and would change its key
        (draft / mlflow_push.MLMODEL).unlink(missing_ok=True)
        yield draft, _mlflow_origin(version)


def _mlflow_origin(version: Mapping[str, Any]) -> dict[str, Any]:
    tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
    licence = {"licence": tags["enginery.licence"]} if "enginery.licence" in tags else {}
    return {"model": f"{version['name']}/{version['version']}", **licence}
