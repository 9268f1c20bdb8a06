"""Writes an existing quantized checkpoint in another layout: no recipe, no calibration, no rounding."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from artifacts.errors import NotFound
from artifacts.registry.registry import Registry
from artifacts.store import scratch, tree
from artifacts.store.disk import ReportFullDisk, ReportUnwritable, refuse_taken
from artifacts.store.local import LocalStore
from calibration.job import Job
from pipeline.checkpoint import naming, stated
from pipeline.checkpoint.convert import quantization_block
from pipeline.checkpoint.layout_checks import linears, reasons
from pipeline.checkpoint.loadable import AT_BUILD, numbers, stored, unloadable
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.checkpoint.slicing import rank_bytes
from pipeline.engines import find_backend
from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from pipeline.pages.artifact_view import find_key
from pipeline.process import process
from pipeline.process.meter import Progress
from pipeline.sources.snapshot import require_inside
from pipeline.step.child_job import child_job
from pipeline.step.step import Step
from pipeline.step.step_parameters import ShardedParams
from pipeline.weights.tensors import open_checkpoint
from recipes.precision import Precision
from recipes.regular import is_directory, user_path

TIMEOUT_S = 24 * 3600.0

CHECKPOINTS = ("quantized_checkpoint", "source")
"""Kinds of artifacts in the layout that is read; an unquantized version has only its source."""

MINOR = 2
"""Numbers that name a release at least."""

EXTRA_BYTES = 64 << 20
"""Room for tokenizer, audit and headers above the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Over how many ranks the weights are spread."""

    tp: int = 1
    pp: int = 1
    ep: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A checkpoint that can be written in a layout, with everything that is known before the first byte."""

    checkpoint: Path
    shape: ModelShape
    precision: Precision
    kv_cache: str
    layout: Layout
    release: str = ""
    """TensorRT-LLM release that will read it; empty: the newest."""
    at_build: bool = False
    """TensorRT-LLM quantizes some of the weights, which stay as they are."""

    @property
    def rank_bytes(self) -> list[int]:
        """Bytes of weights per rank."""
        layout, precision = self.layout, stored(self.precision) if self.at_build else self.precision
        return rank_bytes(self.shape, precision, layout.tp, layout.pp, self.kv_cache, layout.ep)

    @property
    def unloadable(self) -> list[str]:
        """Why TensorRT-LLM, of the release or in any version, cannot load what will be written."""
        layout = self.layout
        reasons = unloadable(self.shape, self.precision, layout.tp, layout.pp, self.release, layout.ep)
        early = () if self.at_build else self.precision.formats
        waiting = [fmt.name for fmt in early if fmt.name in AT_BUILD]
        return reasons + [
            f"format: {name} weights are quantized already, and TensorRT-LLM wants to do that itself; "
            "plan a recipe with engine.backend tensorrt"
            for name in waiting
        ]

    @property
    def step(self) -> Step:
        """The same work as a step of a plan, by the directory's name in the place of a key."""
        return Step(
            kind="sharded_checkpoint",
            inputs={"checkpoint": str(self.checkpoint)},
            params=ShardedParams(
                format=self.precision,
                kv_cache=self.kv_cache,
                **asdict(self.layout),
                layout_version=LAYOUT_VERSION,
                at_build=self.at_build or None,
                names=naming.param(self.shape.architecture, self.release),
            ),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint, and what is known of it beside."""

    path: Path
    recipe: Precision | None = None
    """What a version for TensorRT-LLM was published as, which may be more than its checkpoint shows."""
    key: str | None = None
    """Of the artifact that it is; None of a user's own directory."""


def find(reference: str, store: LocalStore, registry: Callable[[], Registry]) -> Found:
    """A checkpoint's directory: itself, by a key's beginning, or by the version that was made of it."""
    directory = user_path(reference)
    # before names: what exists on disk is meant, even where a version has the same name
    if is_directory(directory):
        return Found(directory.resolve())
    # what looks like a path is never searched for in a registry
    if reference.startswith((".", "/", "~")):
        raise SourceError(f"{reference}: no such directory; give a checkpoint, a key or a published name")
    # the registry is opened only where no key matches: it may be a server
    if key := find_key(store, reference):
        return Found(store.path(key), key=_checkpoint(store, key))
    record = registry().resolve(reference)
    made_of = next((record.lineage[kind] for kind in CHECKPOINTS if kind in record.lineage), None)
    if made_of is None:
        raise NotFound(f"{reference}: its lineage names no {' or '.join(CHECKPOINTS)}")
    backend = find_backend(record.facts.get("backend"))
    quantized_at_build = backend is not None and backend.quantizes_at_build
    # some of its weights wait for the build in the checkpoint, and only the recipe has their format
    recipe = Precision.parse(record.recipe.get("format", "none")) if quantized_at_build else None
    return Found(store.path(made_of), recipe, _checkpoint(store, made_of))


def _checkpoint(store: LocalStore, key: str) -> str:
    """The key, unless it is that of something else."""
    kind = store.manifest(key).kind
    if kind not in CHECKPOINTS:
        raise SourceError(f"{key[:12]} is of kind {kind}; give the key of a {' or a '.join(CHECKPOINTS)}")
    return key


@contextmanager
def held(found: Found, store: LocalStore) -> Iterator[None]:
    """Keeps a checkpoint of the store from every sweep; refused unless it is undamaged."""
    if found.key is None:
        yield
        return
    with store.reading([found.key], f"the resharding of {found.key[:12]}"):
        store.require(found.key, f"{store.manifest(found.key).kind} {found.key[:12]}")
        yield


def order(found: Found, layout: Layout, release: str = "") -> Order:
    """Reads precision and KV cache from the checkpoint; a SourceError with every reason it does not fit.

    `release` is TensorRT-LLM's, whose names are written; empty: the newest.
    """
    if release and len(numbers(release)) < MINOR:
        raise SourceError(
            f"--release: {release!r} is no release of TensorRT-LLM; give one like 0.15 or 1.2.0"
        )
    require_inside(found.path)
    opened = open_checkpoint(found.path)
    shape, block = read_shape(opened.config), quantization_block(opened)
    precision = stated.precision(block, linears(shape), opened.entries)
    if problems := reasons(shape, precision, layout.tp, layout.pp, layout.ep):
        # the reasons name fields of recipes; on this command line they are options
        lines = [f"  {problem.replace('engine.', '--')}" for problem in problems]
        raise SourceError(
            "\n".join([f"{found.path} does not fit tp {layout.tp}, pp {layout.pp}, ep {layout.ep}", *lines])
        )
    waiting = found.recipe is not None and stored(found.recipe) != found.recipe
    return Order(
        checkpoint=found.path,
        shape=shape,
        precision=found.recipe if found.recipe is not None and waiting else precision,
        kv_cache=stated.kv_cache(block),
        layout=layout,
        release=release,
        at_build=waiting,
    )


def write(order: Order, target: Path, on_progress: Progress) -> process.Usage:
    """Writes the rank files beside `target`, which appears at once and complete; one that holds something
    is a DestinationTaken."""
    target = target.absolute()
    # before hours of work; again before the rename, as the target may appear meanwhile
    refuse_taken(target)
    prefix = f".{target.name}.reshard"
    needed = sum(order.rank_bytes) + EXTRA_BYTES
    with ReportFullDisk(target.parent, str(target), needed_bytes=needed) as full:
        with ReportUnwritable(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            # a killed run's files may be the space that is missing
            scratch.sweep(target.parent, prefix)
        full.require()
        with ReportUnwritable(target.parent), scratch.scratch(target.parent, prefix) as draft:
            usage = _convert(order, draft, on_progress)
            # synced first: a crash must not leave the name without the bytes
            tree.sync_all(draft)
            refuse_taken(target)
            draft.rename(target)
    return usage


def _convert(order: Order, out: Path, on_progress: Progress) -> process.Usage:
    """Converts in a child process, which dies with this one."""
    step, inputs = order.step, {"checkpoint": order.checkpoint}
    job = Job(kind=step.maker, params=step.params, places=step.places, inputs=inputs, out=out)
    with tempfile.TemporaryDirectory(prefix="enginery-") as directory:
        child = child_job(job, name="reshard", log=Path(directory) / "log", timeout_s=TIMEOUT_S)
        return process.run(child, on_progress)
