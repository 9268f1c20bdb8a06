"""An aoti step in real stores: the engine is the same whatever earlier builds, or others, left in the cache."""

import shutil
import subprocess  # noqa: TID251 a process of its own asks the compiler what this machine has
import sys
from pathlib import Path

import pytest
import torch

from artifacts import digest
from artifacts.manifest import FileRecord, Manifest
from artifacts.store import tuning_cache
from artifacts.store.local import LocalStore
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site, realize
from pipeline.step.reuse import directory
from pipeline.step.step import Step
from pipeline.step.step_parameters import EngineParams, EnginePlaces
from recipes.precision import Precision
from tests.pipeline.engines import checkpoints
from tests.pipeline.engines.sharded import Toy

pytestmark = pytest.mark.slow

KEY = "a" * 64
STEP = Step(
    kind="engine",
    variant="aoti",
    inputs={"sharded_checkpoint": KEY},
    params=EngineParams(
        backend="aoti", target="host", max_batch_size=2, max_seq_len=32, format=Precision.parse("int8_sq"),
        kv_cache="auto", options={"dtype": "float32", "threads": 1, "autotune": True},
        toolchain={"torch": torch.__version__}, tp=1, pp=1, ep=1,
    ),
    places=EnginePlaces(),
)  # fmt: skip

PROBES = """
import sys
from torch._inductor.cpu_vec_isa import pick_vec_isa
from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir
with temporary_cache_dir(sys.argv[1]):
    print(pick_vec_isa())
"""
"""Inductor compiles programs to see whether this CPU has vectors, where nobody tells it."""


class Heard(Listener):
    """Remembers what was remarked."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def remarked(self, step, text) -> None:
        self.texts.append(text)


def site(root: Path, sharded: Path) -> Site:
    """A store that holds the checkpoint."""
    store = LocalStore(root)
    with store.write(KEY, kind="sharded_checkpoint", step={}, host={}) as draft:
        shutil.copytree(sharded, draft.path, dirs_exist_ok=True)
    return Site(store=store, host=probe())


def outside_tuning(manifest: Manifest) -> dict[str, FileRecord]:
    """Files of an engine whose bytes are its identity."""
    return {name: record for name, record in manifest.files.items() if "tuning" not in name.split("/")}


def keep(place: Path, files: dict[str, bytes], aside: Path, store: LocalStore) -> dict[str, Path]:
    """Keeps files as a build would, sealed; gives the stored content of each."""
    for name, content in files.items():
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_bytes(content)
    sealed = {
        name: FileRecord(size=len(content), sha256=digest.of_file(aside / name))
        for name, content in files.items()
    }
    tuning_cache.keep(place, aside, sealed, store.root / "staging")
    return {name: place / record.sha256 for name, record in sealed.items()}


def test_an_engine_is_the_same_with_times_that_hold_and_a_cache_that_is_damaged(tmp_path: Path):
    source, sharded = checkpoints.source(tmp_path / "source", num_hidden_layers=1), tmp_path / "sharded"
    Toy(source, Precision.parse("int8_sq"), "auto").write(sharded, 1, 1)  # one layer has a choice: the head
    first, other = (site(tmp_path / name, sharded) for name in ("first", "deeper/other"))
    heard = Heard()
    made = realize(STEP, first, heard).manifest
    assert heard.texts == []
    times = [name for name in made.files if name.startswith("tuning/")]
    assert [name.split("/")[1] for name in times] == ["linear"] * len(times) != []

    place = directory(STEP, other.store)
    shutil.copytree(directory(STEP, first.store), place)
    subprocess.run([sys.executable, "-c", PROBES, tmp_path / "probes"], check=True, capture_output=True)
    probes = {
        path.relative_to(tmp_path / "probes").as_posix(): path.read_bytes()[
            :1000
        ]  # none can be loaded any more
        for path in (tmp_path / "probes").rglob("*.so")
    }
    assert probes
    more = {"linear/flipped.json": b"{}", "linear/linked.json": b"[]"}
    stored = keep(place, {**probes, **more}, tmp_path / "aside", other.store)
    stored["linear/flipped.json"].unlink()
    stored["linear/flipped.json"].write_bytes(b"{]")
    stored["linear/linked.json"].unlink()
    stored["linear/linked.json"].symlink_to("/etc/hostname")
    (place / "linear.json").write_text("{}")

    again = realize(STEP, other, heard).manifest
    (text,) = heard.texts
    for what in ("flipped.json: sha256", "linked.json: not a plain file", "linear.json: is not in the index"):
        assert what in text
    assert outside_tuning(again) == outside_tuning(made)
    assert {name: again.files[name] for name in times} == {name: made.files[name] for name in times}
    assert len(again.files) == len(made.files)
