"""What an engine or checkpoint that was built elsewhere is, read from its directory alone."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from artifacts.client import verify_pulled
from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import MANIFEST, VERSION, read_manifest, unseal
from artifacts.store.tree import is_plain, list_files
from artifacts.trust import licence as terms
from pipeline import engines
from pipeline.backend.foreign_engine import ForeignFormat
from pipeline.checkpoint import stated
from pipeline.checkpoint.convert import quantization_block
from pipeline.checkpoint.layout_checks import linears
from pipeline.errors import ExchangeRefused, SourceError
from pipeline.exchange.hf import README, front_matter
from pipeline.models.config_json import read_shape
from pipeline.models.model_json import read_json
from pipeline.run.publish import described, per_rank
from pipeline.sources.snapshot import (
    QUANTIZATION,
    check_names,
    local_names,
    require_inside,
    require_json,
    require_sizes,
)
from pipeline.weights.tensors import open_checkpoint

ENGINE, CHECKPOINT, SOURCE = "engine", "quantized_checkpoint", "source"

UNKNOWN_GPU = "a GPU that nobody named at its import"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """An engine or a checkpoint, as it says of itself."""

    kind: str
    """Kind of artifact that it becomes."""
    names: tuple[str, ...]
    """Its files; others in the directory stay behind."""
    facts: Mapping[str, Any]
    """As of a version that was built here."""
    model: str = ""
    licence: Mapping[str, Any] | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What it states about its origin, unverified."""
    code: bool = False
    """Loading it runs compiled code that is part of it."""


def recognise(directory: Path) -> Foreign:
    """What is in a directory: an engine of ours or of TensorRT-LLM, or a checkpoint in Hugging Face layout.

    Anything else, and links out of the directory, are an ExchangeRefused; a damaged pulled version is an
    ArtifactCorrupt, a damaged checkpoint a SourceError.
    """
    if not directory.is_dir():
        raise ExchangeRefused(
            f"{directory}: no such directory; give one that holds an engine or a checkpoint"
        )
    files = list_files(directory)
    names = expected(files, str(directory))
    if _is_engine(files):
        # a checkpoint may hold links that stay inside it (`require_inside`), an engine none
        links = [name for name in names if not is_plain(files[name])]
        if links:
            raise ExchangeRefused(f"{directory}: {links[0]} is not a plain file; copy its target (cp -rL)")
    # first: a pulled engine has engine.json too, and only here are its seal and files checked
    if VERSION in files:
        return _pulled(directory)
    if "engine.json" in files:
        return _own_engine(directory, names)
    written = _format_of(files)
    return _built_elsewhere(directory, names, written) if written is not None else _checkpoint(directory)


def expected(names: Iterable[str], where: str) -> tuple[str, ...]:
    """Those of these files that an import takes: all of an engine, those of a checkpoint that make a model.

    Neither is an ExchangeRefused, an incomplete checkpoint a SourceError.
    """
    present = set(names)
    if _is_engine(present):
        return tuple(sorted(present))
    if "config.json" in present:
        return tuple(sorted({*check_names(present, where), *(present & {QUANTIZATION})}))
    raise ExchangeRefused(
        f"{where} holds neither an engine (engine.json, or config.json with rank0.engine) nor a "
        "checkpoint (config.json with safetensors); nothing was imported"
    )


def _is_engine(names: Iterable[str]) -> bool:
    held = set(names)
    return bool(held & {VERSION, "engine.json"}) or _format_of(held) is not None


def _format_of(names: Collection[str]) -> ForeignFormat | None:
    """The builder that wrote these files without Enginery; None where no backend's did."""
    # Backends are asked one after another: their files do not resemble one another's.
    written = (engines.backend(name).foreign for name in engines.names())
    return next((one for one in written if one is not None and one.recognise(names)), None)


def _pulled(directory: Path) -> Foreign:
    """A version that another registry's `pull` wrote, or `push` with a card; files and seal are checked."""
    # a push to a repository adds a card, which the manifest does not list
    if problems := verify_pulled(directory, extra_names=[README]):
        raise ArtifactCorrupt(
            "\n".join([f"{directory} is not as it was pulled:", *(f"  {p}" for p in problems)])
        )
    version = unseal((directory / VERSION).read_text(), VERSION)
    manifest = read_manifest((directory / MANIFEST).read_text(), MANIFEST)
    if "engine.json" in manifest.files:
        foreign = _own_engine(directory, tuple(manifest.files))
    else:
        foreign = replace(_checkpoint(directory), names=tuple(manifest.files))
    stated_facts = version.get("facts", {})
    # the other facts are read again from the files, which know less of these two
    kept_facts = {name: stated_facts[name] for name in ("target", "gpus") if name in stated_facts}
    claims = {
        name: version.get(name) for name in ("name", "number", "key", "manifest_digest", "published_at")
    }
    return replace(foreign, facts={**foreign.facts, **kept_facts}, claims=claims)


def _own_engine(directory: Path, names: tuple[str, ...]) -> Foreign:
    about = _json(directory / "engine.json")
    try:
        facts = described(about)
    except (KeyError, TypeError) as exc:
        raise ExchangeRefused(
            f"{directory / 'engine.json'}: is not as this enginery writes it ({exc!r}); build it again"
        ) from None
    facts |= {"target": "unknown", "gpus": [{"name": about.get("gpu") or UNKNOWN_GPU, "sm": about.get("sm")}]}
    # they seal the other registry's version; this store writes its own
    names = tuple(name for name in names if name not in (MANIFEST, VERSION))
    backend = engines.find_backend(about["backend"])
    code = backend is not None and backend.holds_code
    return Foreign(kind=ENGINE, names=names, facts=facts, licence=_licence(directory), code=code)


def _built_elsewhere(directory: Path, names: tuple[str, ...], written: ForeignFormat) -> Foreign:
    """What a builder wrote without Enginery."""
    engine = written.describe(directory, names)
    sizes = per_rank({name: (directory / name).stat().st_size for name in engine.weight_files})
    where = {"target": "unknown", "device": "cuda", "sm": None, "cpu": None, "gpus": [{"name": UNKNOWN_GPU}]}
    return Foreign(
        kind=ENGINE,
        names=names,
        facts={**engine.facts, **where, "weight_bytes_per_rank": sizes},
        model=engine.model,
        licence=_licence(directory),
    )


def _checkpoint(directory: Path) -> Foreign:
    """A checkpoint in Hugging Face layout, quantized as ModelOpt writes it, or not at all."""
    require_inside(directory, terms.TEXT)
    local = local_names(directory)
    try:
        require_sizes(f"{directory}/", {name: (directory / name).stat().st_size for name in local})
        require_json(directory)
        opened = open_checkpoint(directory)
        shape, block = read_shape(opened.config, directory), quantization_block(opened)
        precision = stated.precision(block, linears(shape), opened.entries)
        kv_cache = stated.kv_cache(block)
    except SourceError as exc:
        raise SourceError(f"{exc}; nothing was imported") from None
    names = [*local, *(n for n in (QUANTIZATION,) if (directory / n).is_file())]
    front = front_matter(directory)
    # a card's `base_model` may be one name or a list of them
    base = front.get("base_model")
    return Foreign(
        # a quantized KV cache alone makes it quantized, even where all weights are as in the source
        kind=CHECKPOINT if precision.quantizes or kv_cache != "auto" else SOURCE,
        names=tuple(names),
        facts={
            "backend": "checkpoint",
            "format": precision.default.name if precision.uniform else "mixed",
            "dtype": shape.dtype,
            "kv_cache": kv_cache,
            "tp": 1,
            "pp": 1,
            "world_size": 1,
            "target": "none",
            "device": "none",
            "toolchain": {},
            "gpus": [],
            "weight_bytes_per_rank": [
                sum((directory / n).stat().st_size for n in names if n.endswith(".safetensors"))
            ],
        },
        model=str((base[0] if isinstance(base, list) and base else base) or ""),
        licence=_licence(directory),
    )


def _licence(directory: Path) -> Mapping[str, Any] | None:
    """What the card says, as a version's own source says it, with the texts; None where nothing is said."""
    licence = terms.licence_in(directory)
    return licence if licence["stated"] or licence["texts"] else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except SourceError as exc:
        raise ExchangeRefused(str(exc)) from None
