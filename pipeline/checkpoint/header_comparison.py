"""A checkpoint's tensors against its config.json, from the headers of its files; pure.

Everything that is wrong is said, but once: tensors of the same name in other layers or experts are one
problem. What transformers reads over is noted, and so is what it casts.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.checkpoint.families import family
from pipeline.checkpoint.named import Size, source_tensors
from pipeline.checkpoint.prefixes import plain, without_prefixes
from pipeline.checkpoint.rank_place import SOURCE_TYPES
from pipeline.errors import SourceError
from pipeline.models.shape import ModelShape
from pipeline.weights.tensors import Checkpoint, TensorEntry

INV_FREQ = re.compile(r"rotary_emb\.inv_freq")
"""Tensors that older versions of transformers saved, although config.json says what they hold."""

CAST = ("F64", "F32", "F16", "BF16")
"""Types of weights: transformers casts them to that of config.json as it loads."""

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
"""The number of a layer, or of an expert."""

MAX_PROBLEMS = 20
"""Problems that are told one by one."""

ADAPTER = re.compile(r"\.lora_|\.base_layer\.|\.modules_to_save\.|\.original_module\.")
QUANTIZED = re.compile(r"\.(weight_(scale|scale_inv|packed)|input_scale|qweight|qzeros|g_idx|scales|SCB)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a checkpoint's headers and its config.json say of one another."""

    problems: tuple[str, ...] = ()
    """What keeps the checkpoint from being the model, each with file and tensor."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tensor that no part of the model is made of -> why it may be there."""
    cast: Mapping[str, str] = field(default_factory=dict)
    """Tensor that is cast to the model's type -> the type it has."""

    def notes(self, dtype: str) -> Iterator[str]:
        """Yields what is done with tensors that a model of `dtype` does not hold as they are."""
        for cast_dtype in sorted(set(self.cast.values())):
            names = [name for name, each in self.cast.items() if each == cast_dtype]
            yield f"{_name_tensors(names)} {cast_dtype}, cast to {dtype} as config.json says"
        for why in dict.fromkeys(self.left_out.values()):
            names = [name for name, each in self.left_out.items() if each == why]
            yield f"{_name_tensors(names)} not read: {why}"


def _name_tensors(names: list[str]) -> str:
    more = f" and {len(names) - 1} more tensors are" if len(names) > 1 else " is"
    return f"{plain(names[0])}{more}"


def compare(shape: ModelShape, checkpoint: Checkpoint, where: str) -> Comparison:
    """Compares a checkpoint, which users know by `where`, with what its config.json asks for.

    A config.json that asks for more layers or experts than there are tensors is a SourceError: it is absurd.
    """
    lines = [f"{where}/config.json: {each}" for each in config_problems(shape, checkpoint.config)]
    if (
        checkpoint.config.get("quantization_config") is not None
    ):  # then its tensors have other names and types
        return Comparison(problems=tuple(lines))
    entries = checkpoint.entries
    _require_plausible(shape, len(entries), where)
    expected = source_tensors(shape)
    renamed, foreign = without_prefixes(expected, entries, shape, where)
    left_out = _find_ignored(shape, renamed.keys() - expected.keys())
    present = {name: entry for name, entry in renamed.items() if name not in left_out}
    # The usual case is a complete checkpoint: comparing keys avoids parsing every name for its number.
    layers = shape.num_layers if present.keys() == expected.keys() else _count_layers(shape, present)
    if layers != shape.num_layers:
        start = family(shape.architecture).layers
        lines.append(
            f"{where}/config.json: num_hidden_layers is {shape.num_layers}, the weights have {layers} layers "
            f"({start}.0 to {layers - 1}); correct the number, or get all files of the checkpoint"
        )
    return Comparison(
        problems=_limit_problems(
            [
                *lines,
                *foreign,
                *_check_tied_head(shape, renamed, where),
                *_TensorProblems(where, shape, layers).all(expected, present),
            ]
        ),
        left_out=left_out,
        cast={
            name: entry.dtype
            for name, entry in renamed.items()
            if entry.dtype in CAST and entry.dtype != SOURCE_TYPES[shape.dtype] and not read_over(shape, name)
        },
    )


def _require_plausible(shape: ModelShape, count: int, where: str) -> None:
    """Refuses to make a list of what no memory may hold."""
    experts = shape.experts.count if shape.experts else 1
    # A config.json may ask for 1,024 layers of 4,096 experts; listing their names would take gigabytes.
    if shape.num_layers * experts > count:
        stated_sizes = f"{shape.num_layers} layers" + (f" of {experts} experts" if shape.experts else "")
        raise SourceError(
            f"{where}/config.json: it asks for {stated_sizes}, and the weights have {count} tensors in all; "
            "correct it, or get all files of the checkpoint"
        )


def config_problems(shape: ModelShape, config: Mapping[str, Any]) -> list[str]:
    """Says what config.json holds that makes its tensors others than those of the plain model."""
    problems, block = [], config.get("quantization_config")
    if block is not None:
        method = f", quant_method {block.get('quant_method')!r}" if isinstance(block, dict) else ""
        problems.append(
            f"the checkpoint is quantized already (quantization_config{method}); "
            "give the one it was made from"
        )
    # transformers would load that file instead; the weights read here would be another model's.
    if (file := config.get("transformers_weights")) is not None:
        problems.append(
            f"transformers_weights is {file!r}; only model.safetensors and what model.safetensors.index.json "
            "lists are read: name the weights so, and remove the field"
        )
    return problems


def _find_ignored(shape: ModelShape, unwanted: Collection[str]) -> dict[str, str]:
    """What transformers reads over, with the reason."""
    kin = family(shape.architecture)
    reasons = {name: "config.json says it" for name in sorted(unwanted) if read_over(shape, name)}
    if shape.tie_word_embeddings and kin.head in unwanted:
        reasons[kin.head] = f"tie_word_embeddings is true, and it must equal {kin.embedding}"
    return reasons


def _check_tied_head(shape: ModelShape, entries: Mapping[str, TensorEntry], where: str) -> Iterator[str]:
    """Yields a problem where headers tell that the head is not the embedding it should be tied to."""
    kin = family(shape.architecture)
    if not shape.tie_word_embeddings or not {kin.head, kin.embedding} <= entries.keys():
        return
    head, table = entries[kin.head], entries[kin.embedding]
    if (head.shape, head.dtype) != (table.shape, table.dtype):
        yield (
            f"{where}/{head.file.name}: tie_word_embeddings is true, but {head.name} is {list(head.shape)} "
            f"of {head.dtype} and {table.name} is {list(table.shape)} of {table.dtype}; set "
            f"tie_word_embeddings to false, or remove {head.name}"
        )


def _limit_problems(problems: list[str]) -> tuple[str, ...]:
    """The first problems, and how many more there are."""
    more = len(problems) - MAX_PROBLEMS
    return (*problems[:MAX_PROBLEMS], *([f"and {more} more problems of its tensors"] if more > 0 else ()))


def read_over(shape: ModelShape, name: str) -> bool:
    """Whether transformers leaves a tensor in the file, because its model computes one of that name.

    A model with two rotary bases has two such tables, of other names.
    """
    return shape.rope_local_theta is None and INV_FREQ.search(name) is not None


def _count_layers(shape: ModelShape, present: Iterable[str]) -> int:
    """How many whole layers there are; as many as there should be where they do not count from 0 on."""
    start = family(shape.architecture).layers + "."
    numbers = {name.removeprefix(start).partition(".")[0] for name in present if name.startswith(start)}
    layers = {int(number) for number in numbers if number.isdecimal()}
    # Gaps mean lost files, not a smaller model: then every missing tensor is listed by itself.
    return len(layers) if layers and layers == set(range(len(layers))) else shape.num_layers


@dataclass(frozen=True, slots=True)
class _TensorProblems:
    """Finds tensors that are missing, too many, or of another shape or type."""

    where: str
    shape: ModelShape
    layers: int
    """Layers that are there: beyond them, and beyond those wanted, tensors are not told one by one."""

    def all(self, expected: Mapping[str, Size], present: Mapping[str, TensorEntry]) -> Iterator[str]:
        """Yields every kind of problem, with its first tensor."""
        kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
        for file, name, text in self._list_each(expected, present):
            # One cause usually repeats in every layer and expert: group by the name without its numbers.
            kinds[NUMBER.sub("*", name), text].append(f"{self.where}{file}: {plain(name)}")
        for (_, text), places in kinds.items():
            alike = f" (and {len(places) - 1} more like it)" if len(places) > 1 else ""
            yield f"{places[0]}{alike} {text}"

    def _list_each(
        self, expected: Mapping[str, Size], present: Mapping[str, TensorEntry]
    ) -> Iterator[tuple[str, str, str]]:
        """Yields file and name of every odd tensor, and what is wrong with it."""
        for name, size in expected.items():
            if (entry := present.get(name)) is None:
                if not self._is_beyond(name):
                    yield "", name, self._describe_missing(name)
            elif entry.shape != size or entry.dtype not in CAST:
                yield from (
                    (f"/{entry.file.name}", entry.name, t) for t in self._describe_mismatch(name, size, entry)
                )
        for name in sorted(present.keys() - expected.keys()):
            if not self._is_beyond(name):
                yield f"/{present[name].file.name}", present[name].name, self._describe_extra(name)

    def _is_beyond(self, name: str) -> bool:
        number = name.removeprefix(f"{family(self.shape.architecture).layers}.").partition(".")[0]
        return number.isdecimal() and int(number) >= min(self.layers, self.shape.num_layers)

    def _describe_missing(self, name: str) -> str:
        if name != family(self.shape.architecture).head:
            return "is missing; get the checkpoint again"
        return (
            "is missing, and config.json does not tie it to the embedding; set tie_word_embeddings to true "
            "if the model has no head of its own"
        )

    def _describe_mismatch(self, name: str, size: Size, entry: TensorEntry) -> Iterator[str]:
        kin = family(self.shape.architecture)
        if entry.shape != size:
            rows = f" (vocab_size {size[0]})" if name in (kin.embedding, kin.head) else ""
            yield f"is {list(entry.shape)}, config.json makes it {list(size)}{rows}; correct one of the two"
        if entry.dtype not in CAST:
            yield (
                f"is {entry.dtype}, and weights must be BF16, F16 or F32: the checkpoint is quantized "
                "already, or no model; give the one it was made from"
            )

    def _describe_extra(self, name: str) -> str:
        if ADAPTER.search(name):
            return "is of an adapter; merge it into the model (`merge_and_unload()`) and save that"
        if QUANTIZED.search(name):
            return "is of a quantized checkpoint; give the one it was made from"
        return (
            f"is no tensor of {self.shape.architecture} with this config.json; correct that, or remove it if "
            "the model does not need it"
        )
