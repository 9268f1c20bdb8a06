"""What a build learned (tuned choices, compiled kernels), offered to the next build of the same settings.

An engine keeps its own in `tuning/`. The store's copy is keyed by everything that makes it valid: backend,
options, limits and toolchain. It only saves time: an engine never needs it.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from artifacts import digest
from artifacts.store.local import LocalStore
from pipeline.step import Step

TUNING = "tuning"
RESUME = "resume"
"""Place of a directory that a build interrupted finds again."""
NOT_CACHE = ("trials.json", "trials.png")
"""Results of a search; they belong to one engine."""


def directory(step: Step, store: LocalStore) -> Path:
    """Where the store keeps what builds with the step's settings learned."""
    return store.root / TUNING / digest.of_json(dict(step.params))


def offer(step: Step, store: LocalStore) -> dict[str, Any]:
    """Places of an engine step: what an earlier build learned, if one did; of statistics: where to resume."""
    if step.kind == "statistics":
        return {RESUME: str(store.partial(step.key))}
    found = directory(step, store)
    return {TUNING: str(found)} if step.kind == "engine" and found.is_dir() else {}


def forget(step: Step, store: LocalStore) -> None:
    """Removes what a build kept in case it would be interrupted; its artifact is in the store."""
    shutil.rmtree(store.partial(step.key), ignore_errors=True)


def keep(step: Step, store: LocalStore) -> None:
    """Adds to the store's copy what the step's build learned; each file appears at once and complete."""
    learned = store.path(step.key) / TUNING
    if step.kind != "engine" or not learned.is_dir():
        return
    target = directory(step, store)
    for file in (path for path in learned.rglob("*") if path.is_file() and path.name not in NOT_CACHE):
        place = target / file.relative_to(learned)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as aside:
                aside.write(file.read_bytes())
            shutil.copymode(file, aside.name)
            Path(aside.name).replace(place)
