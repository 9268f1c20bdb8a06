"""What a build learned (times of kernels), offered to the next build of the same settings.

An engine keeps its own in `tuning/`. The store's copy is keyed by everything that makes it valid: backend,
options, limits and toolchain. It only saves time: an engine never needs it.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts import digest
from artifacts.store import tuning_cache
from artifacts.store.local import LocalStore
from artifacts.store.scratch import scratch
from calibration.job import Places
from calibration.parameters import StatisticsPlaces
from pipeline.step.step import Step
from pipeline.step.step_parameters import EnginePlaces

TUNING = tuning_cache.FOLDER
REPORT = "build_report.json"
"""File of an engine's `tuning/` with seconds, memory and what was reused."""
SHOWN = 4
"""Problems in a message, at most; the others are counted."""

Warn = Callable[[str], None]


def directory(step: Step, store: LocalStore) -> Path:
    """Where the store keeps what builds with the step's settings learned."""
    # params alone, not the key: other weights with the same settings have the same kernels
    return store.root / TUNING / digest.of_json(step.params.document())


@contextmanager
def offered(step: Step, store: LocalStore, warn: Warn) -> Iterator[Places]:
    """The step's places with a verified copy of what earlier builds learned; of statistics, where to resume.

    `warn` gets what does not match its seal, which is removed.
    """
    learned, staging = directory(step, store), store.root / "staging"
    if isinstance(step.places, StatisticsPlaces):
        # an interrupted pass goes on after its last finished layer
        yield step.places.model_copy(update={"resume": store.partial(step.key)})
    # exists() is false for a broken link, which `offer` still has to refuse
    elif not isinstance(step.places, EnginePlaces) or not (learned.exists() or learned.is_symlink()):
        yield step.places
    else:
        # a copy: another build may change or collect the original meanwhile
        with scratch(staging, TUNING) as copy:
            try:
                problems = tuning_cache.offer(learned, copy, staging)
            except (PermissionError, FileNotFoundError) as exc:  # another user's, or collected meanwhile
                problems = [str(exc)]
            if problems:
                more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
                warn(
                    f"what earlier builds left in {learned} is not used: {'; '.join(problems[:SHOWN])}{more}"
                )
            yield step.places.model_copy(update={"tuning": copy})


def forget(step: Step, store: LocalStore) -> None:
    """Removes what a build kept in case it would be interrupted; its artifact is in the store."""
    shutil.rmtree(store.partial(step.key), ignore_errors=True)


def keep(step: Step, store: LocalStore, warn: Warn) -> None:
    """Adds what the step's build learned to the store's copy; `warn` gets the reason where that fails."""
    if not isinstance(step.places, EnginePlaces):
        return
    files = {
        name.removeprefix(f"{TUNING}/"): record
        for name, record in store.manifest(step.key).files.items()
        # the report tells of one build; only times of kernels hold for others
        if name.startswith(f"{TUNING}/") and name != f"{TUNING}/{REPORT}"
    }
    try:
        if files:
            tuning_cache.keep(
                directory(step, store), store.path(step.key) / TUNING, files, store.root / "staging"
            )
    except (OSError, ValueError) as exc:  # the engine is in the store, whole, and needs none of it
        warn(f"what the build learned is not kept for later ones: {exc}")
