"""Makes the output of one step exist: found in the store, or built by a child process."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from artifacts.errors import StoreUnusable
from artifacts.manifest import Manifest
from artifacts.store.draft import Draft
from artifacts.store.local import LocalStore
from calibration.job import Job
from pipeline.errors import EXIT_CODES, BuildFailed
from pipeline.process import full_disk, process
from pipeline.process.host import Host
from pipeline.process.meter import Progress
from pipeline.step import reuse
from pipeline.step.child_job import DOOR, child_job
from pipeline.step.judged import JUDGEMENTS, find_judgement
from pipeline.step.step import Step

WARNING = ("calibration_set", "statistics")
"""Kinds of steps whose reports warn."""

REPORT = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where steps run: the store, the machine and the time a step may take."""

    store: LocalStore
    host: Host
    timeout_s: float = 24 * 3600.0
    child: str = DOOR
    """Module that a step's process runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A step whose artifact is in the store."""

    step: Step
    manifest: Manifest
    cached: bool
    warnings: tuple[str, ...] = ()
    """What its report warns of."""

    def remarks(self) -> tuple[str, ...]:
        """What the step's report warns of; of a cached one's, the first warning and where the others are."""
        others = len(self.warnings) - 1
        if self.cached and others > 0:
            where = f"{others} more: `enginery show {self.step.key[:12]}`"
            return (f"{self.step.name}: {self.warnings[0]} ({where})",)
        return tuple(f"{self.step.name}: {text}" for text in self.warnings)


class Listener:
    """Receives the events of steps; ignores them by itself."""

    def started(self, step: Step) -> None:
        """`step` is about to run or to be found."""

    def progressed(self, step: Step, done: int, total: int, unit: str) -> None:
        """`step` has finished `done` of `total` units."""

    def waiting(self, step: Step, whom: str) -> None:
        """Another process builds the same step; `whom` names it and the longest wait."""

    def damaged(self, step: Step, problems: str) -> None:
        """The stored artifact of `step` is corrupt and will be built again."""

    def remarked(self, step: Step, text: str) -> None:
        """Something about the build of `step` is worth knowing and stops nothing."""

    def finished(self, made: Made) -> None:
        """The step's artifact exists."""

    def failed(self, step: Step, error: Exception) -> None:
        """The step did not succeed."""


def realize(step: Step, site: Site, listener: Listener) -> Made:
    """Makes the step's artifact exist; concurrent callers of one key build it once."""
    listener.started(step)
    store, warn = site.store, partial(listener.remarked, step)
    # everything below is under the lock: a second caller waits here, then finds the artifact
    with store.lock(step.key, waiting=lambda whom: listener.waiting(step, whom), patience_s=site.timeout_s):
        # asked after the lock is held, or two waiters would both build
        made = _stored(step, site, listener)
        if made is None:
            with _draft(step, site, listener) as draft, reuse.offered(step, store, warn) as places:
                inputs = _inputs(step, store, listener)
                job = Job(kind=step.maker, params=step.params, places=places, inputs=inputs, out=draft.path)
                name, log = f"{step.kind} {step.key[:12]}", store.log(step.key)
                # innermost first: a full disk is found before paths are renamed
                with _naming_users_place(step, job), _naming_full_disk(store, step):
                    child = child_job(job, name=name, log=log, timeout_s=site.timeout_s, module=site.child)
                    usage = process.run(child, _progress(step, listener))
                draft.peak_memory_bytes = usage.peak_memory_bytes
            # only now is the artifact in the store; failing here costs time later, never the build
            reuse.keep(step, store, warn)
            reuse.forget(step, store)
            # a judgement of another build may hold the plain key: this one then lies beside it
            made = Made(
                step=step, manifest=store.manifest(find_address(step, site) or step.key), cached=False
            )
        # also of a cached step: what its report warns of still holds
        made = replace(made, warnings=_warnings(made, store))
    listener.finished(made)
    return made


@contextmanager
def _draft(step: Step, site: Site, listener: Listener) -> Iterator[Draft]:
    """The step's artifact as it is written; judgements of other builds of an engine stay beside it."""
    store, document, beside = site.store, step.as_dict(), step.kind in JUDGEMENTS
    with store.write(
        step.key, kind=step.kind, step=document, host=site.host.as_dict(), beside=beside
    ) as draft:
        draft.progress = _moving(step, listener, "pushed")
        yield draft


def _inputs(step: Step, store: LocalStore, listener: Listener) -> dict[str, Path]:
    """The directories of the step's inputs that the store has, fetched where they are remote."""
    fetching = _moving(step, listener, "fetched")
    # an input that is not there is left out: a tuned engine's failed trials have none
    return {role: store.directory(key, fetching) for role, key in step.inputs.items() if store.has(key)}


def _warnings(made: Made, store: LocalStore) -> tuple[str, ...]:
    if made.step.kind not in WARNING or REPORT not in made.manifest.files:
        return ()
    return tuple(
        json.loads(store.file(made.manifest.address, REPORT).read_text(encoding="utf-8")).get("warnings", ())
    )


def is_cached(step: Step, site: Site) -> bool:
    """Whether the step's artifact is in the store with its files intact."""
    address = find_address(step, site)
    return address is not None and site.store.intact(address)


def find_address(step: Step, site: Site) -> str | None:
    """Address of what the store has for a step: any content, but of a judgement only one of this engine."""
    store, engine = site.store, step.inputs.get("engine", "")
    if not store.has(step.key):
        return None
    if step.kind not in JUDGEMENTS or not store.has(engine):
        return step.key
    built = store.manifest(engine)
    return find_judgement(store, step.kind, step.key, built.digest, built.created_at)


def _stored(step: Step, site: Site, listener: Listener) -> Made | None:
    store = site.store
    # a loop: contents of one key lie side by side, and the next may be damaged too
    while store.has(step.key) and not store.intact(step.key):
        listener.damaged(step, "; ".join(store.verify(step.key)))
        store.discard(step.key)
    address = find_address(step, site)
    if address is None or not store.intact(address):
        return None
    # a cached artifact is not in the remote store yet if its build ended before the push
    store.push(address, _moving(step, listener, "pushed"))
    return Made(step=step, manifest=store.manifest(address), cached=True)


@contextmanager
def _naming_users_place(step: Step, job: Job[Any, Any]) -> Iterator[None]:
    """Names the user's own place where an error names our copy of what is there.

    What is wrong with the store is not, nor is a crash while the copy is made, wrong with the user's place.
    """
    try:
        yield
    # before the tuple, which holds it too
    except StoreUnusable:
        raise
    except tuple(EXIT_CODES) as exc:
        message = str(exc)
        copies = {step.inputs[role]: directory for role, directory in job.inputs.items()}
        # a crash speaks of our half-made copy, not of the user's files
        if not isinstance(exc, BuildFailed):
            copies[step.key] = job.out
        for key in copies.keys() & step.origins.keys():
            # a child may report either spelling where the store is behind a link
            for copy in {str(copies[key]), str(copies[key].resolve())}:
                message = message.replace(copy, step.origins[key])
        if message == str(exc):
            raise
        raise type(exc)(message) from exc


@contextmanager
def _naming_full_disk(store: LocalStore, step: Step) -> Iterator[None]:
    """Says that the disk is full where that is why a child failed: then its log is empty too."""
    try:
        yield
    except BuildFailed as exc:
        name = f"{step.kind} {step.key[:12]}"
        failure = full_disk.explain_failure(exc, name, store=store.root, needed_bytes=step.size_bytes)
        if failure is exc:
            raise
        raise failure from exc


def _moving(step: Step, listener: Listener, how: str) -> Callable[[int, int], None]:
    """Tells of bytes that move to or from a remote store."""
    return lambda done, total: listener.progressed(step, done, total, f"bytes {how}")


def _progress(step: Step, listener: Listener) -> Progress:
    return lambda done, total, unit: listener.progressed(step, done, total, unit)
