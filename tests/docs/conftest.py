"""Places that console sessions of the documents run in; a block names one: `<!-- run: PLACE -->`."""

import shutil
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Protocol

import pytest

from artifacts.client import Client
from artifacts.registry.registry import Metric
from tests.docs.pages import ROOT
from tests.docs.play import Place
from tests.main_job import DEMO, write_recipe
from tests.pipeline.conftest import ask
from tests.pipeline.export import published
from tests.pipeline.published import FACTS, publication

__all__ = ["ask"]

BUILT = "built"
"""The place with the store that other tests build too."""

NO_TOOLCHAIN = {"ENGINERY_TOOLCHAINS": None, "PATH": "/usr/bin:/bin"}
"""What hides the TensorRT-LLM installations of a developer's host."""


class MakePlace(Protocol):
    """Makes a place by its name."""

    def __call__(self, name: str, *source: Path) -> Place: ...


@pytest.fixture
def place(tmp_path: Path) -> MakePlace:
    """Makes the place that a session names; further arguments are what it is made from."""

    def make(name: str, *source: Path) -> Place:
        directory = tmp_path / name
        directory.mkdir()
        environment = {
            "ENGINERY_STORE": str(directory / "store"),
            "ENGINERY_REGISTRY": None,
            "HOME": str(tmp_path),
            "COLUMNS": "150",
            **NO_TOOLCHAIN,
        }
        place = Place(directory, environment)
        PLACES[name](place, *source)
        return place

    return make


def copy_built(place: Place, root: Path) -> None:
    """A directory in which `enginery run recipe.yaml` was run, with the demo's model and data."""
    shutil.copytree(root / "store", place.directory / "store", symlinks=True)
    place.elsewhere = (root,)
    for name in ("recipe.yaml", "model"):
        (place.directory / name).symlink_to(root / name)


def root(place: Place) -> None:
    """The root of the repository, with an empty store elsewhere."""
    place.directory = ROOT


def empty(place: Place) -> None:
    """An empty directory with an empty store."""


def mistakes(place: Place) -> None:
    """Recipes of the demo model that `plan` refuses: memory.yaml, pattern.yaml, typo.yaml."""
    changes: dict[str, dict[str, Any]] = {
        "memory": {"calibration__memory": {"host_gb": 0.2}},
        "pattern": {"format": {"default": "fp8", "except": {"model.layer.0.*": "none"}}},
        "typo": {"engine__max_batchsize": 8},
    }
    for name, change in changes.items():
        file = place.directory / f"{name}.yaml"
        write_recipe(file, name="my/llama-fp8", calibration__seq_len=256, **change)


def leak(place: Place) -> None:
    """A recipe with a row of the gate's data among those of calibration."""
    (row,) = (DEMO / "data" / "gate.jsonl").read_text().splitlines()[23:24]
    rows = (DEMO / "data" / "calibration.jsonl").read_text().splitlines()[:60]
    (place.directory / "traffic.jsonl").write_text("\n".join([*rows, row]) + "\n")
    shutil.copy(DEMO / "data" / "gate.jsonl", place.directory)
    write_recipe(
        place.directory / "recipe.yaml",
        calibration__data=[{"path": "traffic.jsonl"}],
        gate__data={"path": "gate.jsonl"},
    )


def two_versions(place: Place) -> None:
    """A registry with versions 1 and 2 of demo/int4_awq_tp2, whose engines are stand-ins."""
    client = Client(str(place.directory / "store"))
    for seed in (1, 2):
        version = publication("demo/int4_awq_tp2", seed=seed)
        with client.store.write(version.engine_key, kind="engine", step={}, host={}) as draft:
            (draft.path / "rank0.bin").write_bytes(b"engine" * seed)
        metrics = [Metric("perplexity_ratio", 1.02458), Metric("tokens_per_s", 344.0)]
        client.registry.publish(
            publication(
                "demo/int4_awq_tp2",
                seed=seed,
                metrics=metrics,
                facts={**FACTS, "target": "host", "toolchain": {"torch": version_of("torch"), "cpu": "avx2"}},
                manifest_digest=client.store.manifest(version.engine_key).digest,
            )
        )


def damaged(place: Place) -> None:
    """A store with a byte changed in a file that an engine and its checkpoint share, and a pulled copy in engine/."""
    client = Client(str(place.directory / "store"))
    lineage = {"engine": "e" * 64, "sharded_checkpoint": "5" * 64}
    for kind, key in lineage.items():
        with client.store.write(key, kind=kind, step={}, host={}) as draft:
            (draft.path / "rank1.safetensors").write_bytes(b"weights" * 1000)
            (draft.path / "about.json").write_text(kind)
    version = {"engine_key": "e" * 64, "lineage": lineage, "manifest_digest": None}
    client.registry.publish(publication("demo/int4_awq_tp2", seed=2, **version))
    client.pull("demo/int4_awq_tp2:1", place.directory / "engine")
    file = client.store.path("e" * 64) / "rank1.safetensors"
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.write(b"W")


def tensorrt(place: Place) -> None:
    """A registry with llama-3.1-8b/fp8_tp2_h100, an engine of TensorRT-LLM 0.16 whose files are stand-ins."""
    published.publish(published.ENGINE_FP8_TP2, place.directory / "store")


PLACES: dict[str, Callable[..., None]] = {
    BUILT: copy_built,
    "root": root,
    "empty": empty,
    "mistakes": mistakes,
    "leak": leak,
    "two-versions": two_versions,
    "damaged": damaged,
    "tensorrt": tensorrt,
}
"""Name in a note -> what makes the place."""
