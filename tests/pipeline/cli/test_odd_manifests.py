"""A manifest that is sealed and odd, because somebody sealed nonsense, costs its artifact by name.

ENGINERY_ODD_ROWS=all tries every value in every field.
"""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from artifacts.manifest import MANIFEST, seal
from tests.pipeline import odd_rows

pytestmark = pytest.mark.slow

FIELDS = (
    "version", "kind", "key", "digest", "step", "files", "host", "seconds", "peak_memory_bytes", "created_at",
    "step.inputs", "step.params", "step.kind", "files.engine.json", "host.tools", "host.cpu", "unheard_of",
)  # fmt: skip
VALUES = (
    *odd_rows.INSIDE,
    "x" * 100_000,
    "\ud800",
    "a\0b",
    2**80,
    -1.5,
    "2026-01-01T00:00:00",
    {"a": {"b": "c"}},
    [["a", "b"]],
)
CASES = [(field, value) for field in FIELDS for value in VALUES]
TRIED = CASES if os.environ.get("ENGINERY_ODD_ROWS") == "all" else random.Random(3).sample(CASES, 20)

COMMANDS = (
    ("store", "gc", "--dry-run", "--min-age", "0"), ("verify", "--all"), ("store", "show"), ("show", "{key}"),
    ("ls",), ("card", f"{odd_rows.NAME}:2"), ("registry", "stale", "--offline", "--all"), ("verify", f"{odd_rows.NAME}:2"),
    ("pull", f"{odd_rows.NAME}:2", "{pulled}"), ("pull", f"{odd_rows.NAME}:1", "{good}"),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> odd_rows.Place:
    return odd_rows.make(tmp_path_factory.mktemp("manifests"))


def put(path: Path, field: str, value: object) -> None:
    """The manifest with one value changed, sealed again."""
    values = odd_rows.json.loads(path.read_text())
    del values["seal"]
    *parents, last = field.split(".", 1) if not field.startswith("files.") else ["files", field[6:]]
    at = values
    for parent in parents:
        at = at.setdefault(parent, {})
    at[last] = value
    path.chmod(0o644)
    path.write_text(seal(values))


def test_no_sealed_nonsense_is_a_traceback_or_hides_another_artifact(place: odd_rows.Place, tmp_path: Path):
    key = odd_rows.publication(seed=2).engine_key
    path = place.store.path(key) / MANIFEST
    right = path.read_bytes()
    found = []
    for number, (field, value) in enumerate(TRIED):
        put(path, field, value)
        folders: dict[str, Any] = {
            "pulled": tmp_path / f"p{number}",
            "good": tmp_path / f"g{number}",
            "key": key[:12],
        }
        for command in COMMANDS:
            done = odd_rows.ask(place, *(part.format(**folders) for part in command))
            if done.code not in (0, 1, 2, 3, 4) or "Traceback" in done.err:
                found.append(f"{field}={value!r:.60}: {command}: exit {done.code}: {done.err[-500:]}")
        if not (folders["good"] / MANIFEST).is_file():
            found.append(f"{field}={value!r:.60}: version 1 was not pulled")
        found += [f"{field}={value!r:.60}: {said}" for said in odd_rows.pages(place)]
        path.write_bytes(right)
    assert not found, "\n".join(found[:10])
