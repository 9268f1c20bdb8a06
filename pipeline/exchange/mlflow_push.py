"""A version as a registered model version of an MLflow server: a run with files and metrics, then that."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from artifacts.client import Client
from artifacts.store import tree
from artifacts.version import VersionRecord
from pipeline.errors import ExchangeFailed, ExchangeRefused
from pipeline.exchange.mlflow import MlflowError, Server, connect, location, versions
from pipeline.exchange.model_card import body
from pipeline.exchange.pushed_content import Content, Progress, working_beside, write
from pipeline.exchange.target import RegisteredModel

EXPERIMENT = "enginery"

FOLDER = "model"
"""Directory of the files among a run's artifacts."""

MLMODEL = "MLmodel"
"""File that makes a directory an MLflow model."""

FLAVOR = "enginery"

REFERENCE, KEY = "enginery.version", "enginery.key"
"""Tags that tell which version it is, and which artifact its files are."""

EXISTS = "RESOURCE_ALREADY_EXISTS"

METRICS = 1000
"""Metrics that MLflow takes in one request."""

TAG_CHARACTERS = 5000
"""Longest value of a tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """Where a version is in MLflow."""

    model: str
    number: int
    new: bool
    """False where it was there already."""


def push(content: Content, client: Client, to: RegisteredModel, progress: Progress | None = None) -> Pushed:
    """Registers the part as a new version of a model, with the files, metrics and card of ours.

    The version is made last, when every file is there in its size. The same version again is the one that is
    there. Our aliases do not move theirs.
    """
    if to.number is not None or to.alias is not None:
        raise ExchangeRefused(f"mlflow: numbers versions itself; push to mlflow:{to.address}#{to.model}")
    server, model = connect(to.address), to.model or model_name(content.record)
    with server.client:
        if (existing := _existing_version(server, model, content)) is not None:
            return Pushed(model=model, number=existing, new=False)
        with working_beside(client.store.root / "push", content.manifest.size_bytes) as draft:
            write(content, client, draft / "files", progress)
            with _run(server, content.record) as run:
                _describe(draft / "files", content, str(run["run_id"]))
                _upload(server, draft / "files", str(run["artifact_uri"]), progress)
                _log(server, str(run["run_id"]), content)
                number = _register(server, model, content, run)
    return Pushed(model=model, number=number, new=True)


def model_name(record: VersionRecord) -> str:
    """Our name with dots for slashes, which MLflow does not take."""
    return re.sub(r"[/:]", ".", record.name)


def _existing_version(server: Server, model: str, content: Content) -> int | None:
    """Number of the version that has these files already."""
    try:
        server.get("mlflow/registered-models/get", name=model)
    except MlflowError as exc:
        if exc.code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    for version in versions(server, model):
        tags: dict[str, str] = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
        # both: a version of another registry may have the same reference and other files
        if (tags.get(REFERENCE), tags.get(KEY)) == (content.record.reference, content.manifest.key):
            return int(version["version"])
    return None


@contextmanager
def _run(server: Server, record: VersionRecord) -> Iterator[dict[str, Any]]:
    """A run that ends as FINISHED with the block, and as FAILED with an exception."""
    try:
        server.post("mlflow/experiments/create", name=EXPERIMENT)
    except MlflowError as exc:
        # two pushes may create it at the same moment; the loser finds it there
        if exc.code != EXISTS:
            raise
    experiment = server.get("mlflow/experiments/get-by-name", experiment_name=EXPERIMENT)["experiment"]
    run = server.post(
        "mlflow/runs/create",
        experiment_id=experiment["experiment_id"],
        run_name=record.reference,
        start_time=_now_ms(),
    )["run"]["info"]
    # also right for KeyboardInterrupt, which no `except Exception` would see
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    finally:
        server.post("mlflow/runs/update", run_id=run["run_id"], status=status, end_time=_now_ms())


def _describe(files: Path, content: Content, run: str) -> None:
    """Writes the file that makes it a model of MLflow's; it loads in none of MLflow's own flavors."""
    facts = content.record.facts
    flavor = {name: facts[name] for name in ("backend", "format", "tp", "pp", "toolchain") if name in facts}
    document: dict[str, Any] = {
        "artifact_path": FOLDER,
        "flavors": {FLAVOR: {"part": content.part, "version": content.record.reference, **flavor}},
        "model_size_bytes": content.manifest.size_bytes,
        "run_id": run,
        "utc_time_created": f"{content.record.published_at:%Y-%m-%d %H:%M:%S.%f}",
    }
    (files / MLMODEL).write_text(yaml.safe_dump(document, sort_keys=True))


def _upload(server: Server, files: Path, uri: str, progress: Progress | None) -> None:
    """Sends every file, then compares what the server lists."""
    folder = f"{location(uri, server.address)}/{FOLDER}"
    sizes = {name: path.stat().st_size for name, path in tree.list_files(files).items()}
    done, total = 0, sum(sizes.values())

    def sent(count: int) -> None:
        nonlocal done
        # a repeated attempt sends its bytes again, and progress must not pass the total
        done = min(total, done + count)
        if progress is not None:
            progress(done, total)

    for name in sizes:
        server.upload(files / name, f"{folder}/{name}", sent)
    # before the version is made: a later push asks only for its tags, and would take it for complete
    listed = server.files(folder)
    differing = sorted(name for name in {*sizes, *listed} if sizes.get(name) != listed.get(name))
    if differing:
        raise ExchangeFailed(f"{server.address}: {differing[0]} is incomplete after its upload; push again")


def _log(server: Server, run: str, content: Content) -> None:
    """Gives the run our metrics and, as parameters, what was built."""
    now, record = _now_ms(), content.record
    # names here may be of one batch size, `name@batch`
    metrics = [
        {"key": metric.name.replace("@", "/"), "value": metric.value, "timestamp": now, "step": 0}
        for metric in record.metrics
    ]
    names = ("backend", "format", "kv_cache", "tp", "pp", "max_batch_size", "max_seq_len", "target")
    params = [{"key": n, "value": str(record.facts[n])[:500]} for n in names if n in record.facts]
    server.post("mlflow/runs/log-batch", run_id=run, params=params)
    for start in range(0, len(metrics), METRICS):
        server.post("mlflow/runs/log-batch", run_id=run, metrics=metrics[start : start + METRICS])


def _register(server: Server, model: str, content: Content, run: dict[str, Any]) -> int:
    """Makes the version, and the model where it is new; returns its number."""
    try:
        server.post("mlflow/registered-models/create", name=model)
    except MlflowError as exc:
        if exc.code != EXISTS:
            raise
    record = content.record
    tags = {
        REFERENCE: record.reference,
        KEY: content.manifest.key,
        "enginery.part": content.part,
        "enginery.manifest_digest": content.manifest.digest,
        "enginery.verdict": record.verdict,
        "enginery.model": record.model,
        "enginery.licence": content.licence or "",
    }
    answer = server.post(
        "mlflow/model-versions/create",
        name=model,
        source=f"{run['artifact_uri']}/{FOLDER}",
        run_id=run["run_id"],
        description=body(content),
        tags=[{"key": key, "value": value[:TAG_CHARACTERS]} for key, value in tags.items() if value],
    )
    return int(answer["model_version"]["version"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
