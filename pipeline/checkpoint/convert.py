"""Writes a sharded checkpoint: `config.json`, `rank{r}.safetensors`, `audit.json`, `tokenizer/`.

Every byte of a rank file is copied from the checkpoint's files, or is a zero of padding or a one of an absent
smoothing factor, so memory is bounded by a few pieces, and every layout holds the same weights. Two values
are computed: a layer's `kv_cache_scaling_factor`, the largest of its key and value scales (and of one, in
fp8), and Gemma's norms, one plus the source's weight. The router of experts is widened to float32.
Mixed precision adds `quant_cfg.json`, which names each quantized linear.

Byte for byte these are the tensors that ModelOpt 0.47's `export_tensorrt_llm_checkpoint` writes from the same
calibrated model, except:

    AWQ: factors of qkv, fc, gate         ones: the smoothing is folded into the norm before them, except
                                          in Gemma and Phi-3, whose factors are ModelOpt's
    AWQ: the norms before them            folded, for the same reason
    Phi-3: fc over several ranks          holds a part of up and gate projection on every rank; ModelOpt and
                                          TensorRT-LLM's converter cut the pair as if it were one
    Gemma: tied heads                     written; ModelOpt leaves them to share_embedding_table
    int4: vocabulary tables               padded to a multiple of tp, not of 64: the head is not quantized
    per-tensor and AWQ: fc and gate       share their scales, as fused kernels need; ModelOpt keeps two
    repeated key heads                    in every format; ModelOpt refuses per-channel and per-block scales
    k_, v_cache_scaling_factor            absent: TensorRT-LLM reads only their maximum
    experts                               that export cannot stack those that transformers 5 has fused

and in the JSON files:

    int4_wo: pre_quant_scale              false: there are no factors, and TensorRT-LLM would ask for them
    fp8_rowwise: exclude_modules          names the final norm, which some versions of it quantize otherwise
    int8_wo: exclude_modules              names embeddings and routers, which are quantized where it is given
    mixed precision over stages           all layers, by their numbers in the model; ModelOpt's last stage
                                          overwrites what the others said

What TensorRT-LLM makes of the tensors when it loads them is its own. Of W4A8_AWQ it divides the block scales
by `weights_scaling_factor_2` and rounds the quotients to float16, divides the factors by
`activation_scaling_factor`, and multiplies the two scalars to `alpha`.
int8_wo is written in two ways. `at_build`, for TensorRT-LLM: its linears are those of the source checkpoint,
and `trtllm-build` quantizes them, as TensorRT-LLM's own quantize.py has it. Otherwise, for other engines: as
ModelOpt does (int8 `[out, in]`, one float32 scale per channel), which TensorRT-LLM does not load.
`pipeline.checkpoint.loadable` says why, and what else TensorRT-LLM does not load.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from calibration.quantize.quantization_config import QuantConfig, config_block
from calibration.tokenizer_files import copy_tokenizer
from pipeline.checkpoint import conversion_audit, naming, with_heads
from pipeline.checkpoint.families import family
from pipeline.checkpoint.header_comparison import read_over
from pipeline.checkpoint.layout_checks import linears, reasons
from pipeline.checkpoint.loadable import stored
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION, engine_config, quant_cfg
from pipeline.checkpoint.scale_tensors import check_scales
from pipeline.checkpoint.slicing import plan
from pipeline.checkpoint.stated import differences
from pipeline.checkpoint.tensor_parts import Fill, Largest, LocalTensor, PlusOne, Slice
from pipeline.checkpoint.writers import write_all
from pipeline.errors import BuildFailed, SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.model_json import read_json, shortened
from pipeline.models.shape import ModelShape
from pipeline.models.vocabulary import require_same
from pipeline.process.meter import Progress
from pipeline.step.step_parameters import ShardedJob
from pipeline.weights.casting import narrowed
from pipeline.weights.tensor_writer import PIECE_BYTES, Chunk, Span, TensorPlan, write_safetensors
from pipeline.weights.tensors import NUMPY_TYPES, Array, Checkpoint, open_checkpoint
from recipes.precision import Precision

ONES = {"BF16": 0x3F80, "F16": 0x3C00, "F32": 0x3F800000}
"""Bits of 1.0."""

WIDENED = ("BF16", "F16")
"""Types that are written as float32 where the layout wants that: every value stays as it is."""

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""At least one of them makes a tokenizer."""


def build(job: ShardedJob, progress: Progress) -> None:
    """Converts the input `checkpoint` to the layout in `params`; checks come before the first byte.

    A `target` among the inputs is the checkpoint of the model that this one, a draft, proposes tokens to.
    `heads` propose tokens to this model and come with it.
    """
    params, inputs, out = job.params, job.inputs, job.out
    tp, pp, ep, kv_cache, precision = params.tp, params.pp, params.ep, params.kv_cache, params.format
    held = stored(precision) if params.at_build else precision
    if params.layout_version != LAYOUT_VERSION:
        raise ValueError(f"layout_version {params.layout_version}; this code writes {LAYOUT_VERSION}")
    checkpoint = open_checkpoint(inputs["checkpoint"])
    shape = read_shape(checkpoint.config)
    if "target" in inputs:
        require_same(inputs["target"], checkpoint.directory)
    if impossible := reasons(shape, held, tp, pp, ep):
        layout = f"tp {tp}, pp {pp}" + (f", ep {ep}" if ep > 1 else "")
        told = [f"{layout}, format {str(precision)!r} does not fit the model", *impossible]
        raise BuildFailed("\n  ".join(told))
    _check_precision(checkpoint, shape, held, kv_cache)
    old = naming.older(shape.architecture, params.names or naming.NEWEST)
    ranks = naming.renamed(plan(shape, held, tp, pp, kv_cache, ep), old)
    heads = with_heads.read(job, shape)
    if heads is not None:
        checkpoint, ranks = heads.beside(checkpoint), heads.extended(ranks)
    uses_of, left_out = conversion_audit.uses(ranks), _find_unused_tensors(checkpoint, shape)
    kinds = {name: (entry.dtype, entry.shape) for name, entry in checkpoint.entries.items()}
    conversion_audit.check(uses_of, kinds, left_out, str(checkpoint.directory))
    # The last check before the first byte. It reads all scales and compares them, so it runs after the
    # header checks, which cost nothing.
    check_scales(checkpoint, shape)
    _copy_tokenizer(checkpoint.directory, out / "tokenizer")
    write_all(_split_into_files(checkpoint, ranks, out), progress)
    _write_json(out / "audit.json", conversion_audit.report(ranks, uses_of, left_out))
    config = naming.config(engine_config(shape, precision, tp, pp, kv_cache, ep), old)
    if heads is not None:
        _write_json(out / with_heads.PLAIN, config)
        config = heads.config(config)
    _write_json(out / "config.json", config)
    if mixed := quant_cfg(shape, precision, kv_cache):
        _write_json(out / "quant_cfg.json", naming.quant_cfg(mixed, old))


def _check_precision(checkpoint: Checkpoint, shape: ModelShape, precision: Precision, kv_cache: str) -> None:
    if mismatches := differences(quantization_block(checkpoint), precision, kv_cache, linears(shape)):
        details = "\n  ".join(mismatches)
        raise SourceError(f"{checkpoint.directory}: {details}; give the checkpoint of that precision")


def quantization_block(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Reads what a checkpoint says of its quantization; older exports say it in hf_quant_config.json only."""
    block = checkpoint.config.get("quantization_config")
    beside = checkpoint.directory / "hf_quant_config.json"
    if block is not None and not isinstance(block, dict):
        raise SourceError(
            f"{checkpoint.directory / 'config.json'}: quantization_config is {shortened(block)}; "
            "it must be null or an object"
        )
    if block is not None or not beside.is_file():
        return block or {}
    try:
        return config_block(cast("QuantConfig", {"producer": {}} | read_json(beside)))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SourceError(f"{beside}: not as ModelOpt writes it ({exc!r}); fetch the file again") from exc


def _find_unused_tensors(checkpoint: Checkpoint, shape: ModelShape) -> dict[str, str]:
    """Lists source tensors that no rank needs, with the reason; a tied head must equal the embedding."""
    kin = family(shape.architecture)
    left_out = {
        name: "computed from rotary_base and rotary_scaling"
        for name in checkpoint.entries
        if read_over(shape, name)
    }
    if shape.tie_word_embeddings and {kin.head, kin.embedding} <= checkpoint.entries.keys():
        if not checkpoint.same(kin.head, kin.embedding):
            raise SourceError(
                f"{checkpoint.directory}: tie_word_embeddings is true, but {kin.head} differs from "
                f"{kin.embedding}; set tie_word_embeddings to false, or remove {kin.head}"
            )
        left_out[kin.head] = f"tied to {kin.embedding}, which holds the same bytes"
    return left_out


def _copy_tokenizer(source: Path, target: Path) -> None:
    target.mkdir()
    if not set(copy_tokenizer(source, target)) & set(VOCABULARIES):
        raise SourceError(f"{source}: no tokenizer; one of {', '.join(VOCABULARIES)} is needed")


@dataclass(frozen=True, slots=True)
class RankFile:
    """One rank's file, with all that a process of its own needs to write it."""

    path: Path
    checkpoint: Checkpoint
    tensors: Sequence[LocalTensor]

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def write(self, wrote: Callable[[int], None]) -> None:
        """Writes the file; the checkpoint's mappings are this call's own."""
        # The memory maps of the parent do not survive pickling, and a shared one would let one rank's
        # drop_pages evict the pages that another rank is reading.
        own = Checkpoint(self.checkpoint.directory, self.checkpoint.config, self.checkpoint.entries)
        write_safetensors(self.path, [_plan_tensor(own, tensor) for tensor in self.tensors], wrote=wrote)


def _split_into_files(
    checkpoint: Checkpoint, ranks: Sequence[Sequence[LocalTensor]], out: Path
) -> list[RankFile]:
    """Says what to write; each file gets the part of the checkpoint's header that it reads."""
    parts = []
    for rank, tensors in enumerate(ranks):
        # A rank file is pickled to its process; the header of a large checkpoint has 100,000 entries.
        entries = {name: checkpoint.entries[name] for name in conversion_audit.uses([tensors])}
        subset = Checkpoint(checkpoint.directory, checkpoint.config, entries)
        parts.append(RankFile(out / f"rank{rank}.safetensors", subset, tensors))
    return parts


def _plan_tensor(checkpoint: Checkpoint, tensor: LocalTensor) -> TensorPlan:
    return TensorPlan(tensor.name, tensor.dtype, tensor.shape, lambda: _produce_chunks(checkpoint, tensor))


def _produce_chunks(checkpoint: Checkpoint, tensor: LocalTensor) -> Iterator[Chunk]:
    for part in tensor.parts:
        if isinstance(part, Fill):
            yield _fill_values(part, tensor.dtype)
        elif isinstance(part, Largest):
            yield _compute_largest(checkpoint, part)
        elif isinstance(part, PlusOne):
            yield _add_one(checkpoint, part, tensor.dtype)
        elif part.dtype in WIDENED and tensor.dtype == "F32":
            yield _read_widened(checkpoint, part)
        elif part.contiguous:
            yield _locate_span(checkpoint, part)
        else:
            yield from _read_rows(checkpoint, part)


def _fill_values(part: Fill, dtype: str) -> Array:
    # numpy has no bfloat16: the bits are written as unsigned integers of the same size.
    bits = ONES[dtype] if part.value else 0
    kind = np.dtype(NUMPY_TYPES[dtype])
    return np.full(part.extent, bits, np.dtype(f"u{kind.itemsize}"))


def _compute_largest(checkpoint: Checkpoint, part: Largest) -> Array:
    """Computes a float32 value [1]; check_scales has seen that its sources are positive and finite."""
    values = [checkpoint.floats(each.source) for each in part.sources]
    return np.array([max(part.floor, *(float(value) for value in values))], np.float32)


def _read_widened(checkpoint: Checkpoint, part: Slice) -> Array:
    """Reads a small whole tensor as float32."""
    assert part.extent == part.shape
    return checkpoint.floats(part.source)


def _add_one(checkpoint: Checkpoint, part: PlusOne, dtype: str) -> Array:
    """Adds one in float32; the sum is rounded to nearest, ties to even."""
    # In bfloat16 the sum would be rounded twice; ModelOpt and TensorRT-LLM add in float32 too.
    return narrowed(checkpoint.floats(part.source.source) + np.float32(1), dtype)


def _locate_span(checkpoint: Checkpoint, part: Slice) -> Span:
    entry = checkpoint.entries[part.source]
    if not part.shape:
        return Span(entry.file, entry.start, entry.end)
    # Slice.contiguous holds here: all dimensions but the first are whole, so rows are consecutive bytes.
    row = entry.nbytes // part.shape[0]
    start, stop = part.ranges[0]
    return Span(entry.file, entry.start + start * row, entry.start + stop * row)


def _read_rows(checkpoint: Checkpoint, part: Slice) -> Iterator[Array]:
    """Yields a box of a matrix as runs of rows, giving back the memory of each run once it is written."""
    entry = checkpoint.entries[part.source]
    (first, last), (left, right) = part.ranges
    source = checkpoint.array(part.source)
    row = entry.nbytes // part.shape[0]
    # A row-parallel slice takes columns out of every row: the kernel cannot copy it in one piece, and the
    # mapped source would fill memory if its pages were not dropped run by run.
    step = max(1, PIECE_BYTES // row)
    for start in range(first, last, step):
        stop = min(start + step, last)
        yield source[start:stop, left:right]
        checkpoint.drop_pages(entry, start * row, stop * row)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
