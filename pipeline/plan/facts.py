"""What a plan needs to know about the outside world: read here, so that planning itself is pure."""

import gc
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from artifacts import digest
from artifacts.store.local import LocalStore
from calibration.errors import DataError
from pipeline import engines
from pipeline.checkpoint.header_comparison import compare, config_problems
from pipeline.checkpoint.rank_place import SOURCE_TYPES
from pipeline.checkpoint.slicing import rank_bytes
from pipeline.drafting.heads import Heads, read_heads
from pipeline.drafting.modes import WITH_HEADS
from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.generation_config import ends
from pipeline.models.model_json import require_directory
from pipeline.models.shape import ModelShape
from pipeline.models.tokenizer_check import Tokens, missing_package, read_tokens, tokenizer_names
from pipeline.models.vocabulary import vocabulary
from pipeline.plan.chat_templates import template_problems
from pipeline.plan.data_facts import DataFacts, read_data
from pipeline.process.host import Host
from pipeline.sources.hub_headers import remote_checkpoint
from pipeline.sources.snapshot import (
    Remote,
    holds_config_only,
    listed,
    local_digest,
    require_inside,
    require_texts,
    unread,
)
from pipeline.step.step_parameters import SourceParams, SourcePlaces
from pipeline.toolchains.discovery import choose, discover
from pipeline.toolchains.probe import Memory
from pipeline.toolchains.toolchain import Choice
from pipeline.weights.tensors import Checkpoint, item_bytes, open_checkpoint, read_config
from recipes.data import Data
from recipes.errors import RecipeError
from recipes.load import Loaded
from recipes.precision import Precision
from recipes.regular import FileRefused, resolved
from recipes.schema import Model, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source checkpoint, before any weight is read."""

    shape: ModelShape
    weight_bytes: int
    params: SourceParams
    places: SourcePlaces
    vocabulary: str = ""
    """Digest of the tokens; empty where they are not compared, or known only after the download."""
    lacking: str = ""
    """What has to be added before anything can be built, and so before anything has a key."""
    problems: tuple[str, ...] = ()
    """What is wrong with its config.json, and where its tensors are not those that config.json asks for."""
    notes: tuple[str, ...] = ()
    """What is cast, and what is not read."""
    missing: str = ""
    """Package that its tokenizer needs and this host lacks."""
    beyond: Mapping[str, int] = field(default_factory=dict)
    """Tokens of its tokenizer that the model has no row for."""

    @property
    def where(self) -> str:
        """The checkpoint as messages name it: a path, or a commit."""
        return str(self.places.path or f"{self.params.repo}@{str(self.params.revision)[:12]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything outside the recipe that a plan depends on."""

    host: Host
    source: Source
    data: Mapping[Data, DataFacts]
    """Each source of text that the recipe names."""
    free_bytes: int
    """Free space where the store is."""
    choice: Choice = field(default_factory=Choice)
    """The outside toolchain that the recipe's backend builds with."""
    draft: Source | None = None
    """Checkpoint of the draft model that proposes tokens."""
    heads: Heads | None = None
    """Heads beside the model that propose tokens."""


def gather(loaded: Loaded, host: Host, store: LocalStore) -> Facts:
    """Reads headers, hashes data files; every missing or broken file is reported at once."""
    problems: list[str] = []
    data: dict[Data, DataFacts] = {}
    for place, item in data_items(loaded.recipe):
        try:
            data[item] = read_data(loaded.base, item, store)
        except (DataError, SourceError, FileRefused, OSError) as exc:
            problems.append(f"{place}: {format_error(exc)}")
    draft, sources = draft_model(loaded.recipe), {}
    models = {"model": loaded.recipe.model} | ({"speculative.draft": draft} if draft else {})
    for number, (place, model) in enumerate(models.items()):
        try:
            with _collecting_later():
                sources[place] = read_source(model, loaded.base, store, compared=len(models) > 1)
        except (SourceError, FileRefused, OSError) as exc:
            # model problems come before data problems, as the fields stand in the recipe
            problems.insert(number, f"{place}: {format_error(exc)}")
    # a model that could not be read is reported already; its templates would repeat it
    problems += _templates(loaded, data, store, whole="model" in sources)
    try:
        heads = _heads(loaded, store)
    except (SourceError, FileRefused, OSError) as exc:
        problems.append(f"speculative.draft: {format_error(exc)}")
    if problems:
        raise RecipeError(loaded.file, problems)
    return Facts(
        host=host,
        source=sources["model"],
        data=data,
        free_bytes=store.free_bytes(),
        choice=choose_toolchain(loaded.recipe, store),
        draft=sources.get("speculative.draft"),
        heads=heads,
    )


def format_error(exc: Exception) -> str:
    """The error's message; of one of the file system the file, and the reason."""
    return f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.filename else str(exc)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Looks for no garbage meanwhile: headers make none, and with 30,000 tensors looking takes 0.2 s."""
    gc.disable()
    try:
        yield
    finally:
        # also after an error, or the whole process would go on without a collector
        gc.enable()


def _templates(
    loaded: Loaded, data: Mapping[Data, DataFacts], store: LocalStore, *, whole: bool
) -> list[str]:
    """What is wrong with the chat templates; `whole`: the model could be read, so its own can be too."""
    path = loaded.recipe.model.path
    model = resolved(loaded.base / path) if path is not None and whole else None
    if model is not None and holds_config_only(model):
        model = None
    sources = {place: (item, data[item]) for place, item in data_items(loaded.recipe) if item in data}
    return list(template_problems(loaded.base, model, sources, Memory(store.root / "tokenizers.json")))


def _heads(loaded: Loaded, store: LocalStore) -> Heads | None:
    """The heads that a recipe names; None for a mode without."""
    speculative = loaded.recipe.speculative
    if speculative is None or speculative.mode not in WITH_HEADS or speculative.draft is None:
        return None
    return read_heads(speculative.draft, loaded.base, store)


def choose_toolchain(recipe: Recipe, store: LocalStore) -> Choice:
    """The toolchain of the recipe's backend; neither one nor a problem for a backend that uses none."""
    name = recipe.engine.backend
    if name not in engines.names() or not engines.backend(name).uses_toolchain:
        return Choice()
    return choose(discover(store.root, os.environ), recipe.engine.toolchain)


def draft_model(recipe: Recipe) -> Model | None:
    """The draft model's checkpoint; heads beside a model are none."""
    speculative = recipe.speculative
    return (
        speculative.draft if speculative is not None and speculative.mode == "draft_tokens_external" else None
    )


def data_items(recipe: Recipe) -> Iterable[tuple[str, Data]]:
    """Every data source of the recipe, with its dotted place."""
    if recipe.calibration is not None:
        for number, item in enumerate(recipe.calibration.data):
            yield f"calibration.data.{number}", item
    yield "gate.data", recipe.gate.data


def source_of(loaded: Loaded, store: LocalStore) -> Source:
    """The source checkpoint alone; a RecipeError that names the field where it cannot be used."""
    try:
        return read_source(loaded.recipe.model, loaded.base, store)
    except (SourceError, FileRefused, OSError) as exc:
        raise RecipeError(loaded.file, [f"model: {format_error(exc)}"]) from exc


def read_source(model: Model, base: Path, store: LocalStore, *, compared: bool = False) -> Source:
    """Shape, size and identity of a checkpoint; of a hub commit, only headers are fetched.

    `compared` asks for the vocabulary too, which a local checkpoint can tell.
    """
    if model.path is not None:
        directory = resolved(base / model.path)
        require_directory(directory)
        # before anything in it is opened: a link that leads out must not be followed
        require_inside(directory)
        if holds_config_only(directory):
            return _config_only(directory, model.path)
        ends(directory)  # read where text is generated, and refused here
        source = _source(
            open_checkpoint(directory),
            # the store remembers digests of unchanged files: a second plan does not hash the weights again
            SourceParams(digest=local_digest(directory, store.digests.digest)),
            SourcePlaces(path=directory),
            (str(directory), [path.name for path in directory.iterdir()]),
        )
        require_texts(directory)
        tokens = _tokens(directory, source.shape.vocab_size, store)
        source = replace(source, missing=tokens.missing, beyond=tokens.beyond)
        return replace(source, vocabulary=vocabulary(directory)) if compared else source
    remote = Remote(str(model.repo), str(model.revision), store.root / "hub", os.environ.get("HF_ENDPOINT"))
    params = SourceParams(repo=model.repo, revision=model.revision)
    places = SourcePlaces(cache=remote.cache, endpoint=remote.endpoint)
    checkpoint = remote_checkpoint(remote)
    names = listed(remote)
    source = _source(checkpoint, params, places, (remote.where, names))
    return replace(source, missing=missing_package(names))


def _tokens(directory: Path, vocab_size: int, store: LocalStore) -> Tokens:
    """What a local tokenizer holds; files that were read once are not read again, which takes a second."""
    names = [*tokenizer_names(directory), "config.json"]  # by its model_type transformers chooses the class
    files = {name: store.digests.digest(directory / name) for name in names}
    # before recall: what is remembered must not hide that a package is gone
    if missing := missing_package(list(files)):
        return Tokens({}, missing)
    memory, key = Memory(store.root / "tokenizers.json"), digest.of_json({**files, "vocab_size": vocab_size})
    # an empty answer counts, so the test is against None
    remembered = memory.recall(key)
    if remembered is not None:
        return Tokens({text: int(number) for text, number in remembered.items()})
    tokens = read_tokens(directory, vocab_size)
    # Memory stores strings only; nothing to watch, for the key holds the digests
    memory.keep(key, {text: str(number) for text, number in tokens.beyond.items()}, [])
    return tokens


def _config_only(directory: Path, named: str) -> Source:
    """A model without its weights: its shape says how large they are; it is planned, and not built."""
    config = read_config(directory)
    shape = read_shape(config, directory)
    return Source(
        shape=shape,
        # no file to measure: the size that one rank would have, unquantized
        weight_bytes=sum(rank_bytes(shape, Precision.parse("none"), 1, 1)),
        # its own field: this digest may never equal one of a directory with weights
        params=SourceParams(config=digest.of_file(directory / "config.json")),
        places=SourcePlaces(path=directory),
        lacking=f"{named} holds config.json and no weights; add safetensors files and tokenizer",
        problems=tuple(f"{directory}/config.json: {told}" for told in config_problems(shape, config)),
    )


def _source(
    checkpoint: Checkpoint,
    params: SourceParams,
    places: SourcePlaces,
    at: tuple[str, Iterable[str]],
) -> Source:
    """What is known of a checkpoint; `at` is what its user calls it, and the names of all files there."""
    where, names = at
    shape = read_shape(checkpoint.config, where)
    compared = compare(shape, checkpoint, where)
    read = {entry.file.name for entry in checkpoint.entries.values()}
    return Source(
        shape=shape,
        weight_bytes=_bytes(checkpoint, compared.cast, SOURCE_TYPES[shape.dtype]),
        params=params,
        places=places,
        problems=compared.problems,
        notes=(*compared.notes(shape.dtype), *unread(names, read)),
    )


def _bytes(checkpoint: Checkpoint, cast: Collection[str], dtype: str) -> int:
    """Bytes of the weights: as they are stored, or once they are cast if that is more."""
    stored = sum(entry.nbytes for entry in checkpoint.entries.values())
    cast_entries = [entry for name, entry in checkpoint.entries.items() if name in cast]
    more = sum(math.prod(entry.shape) * item_bytes(dtype) - entry.nbytes for entry in cast_entries)
    return stored + max(0, more)
