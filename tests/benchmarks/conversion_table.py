"""Families x formats x layouts: whether rank files are ModelOpt's, and compute what transformers does.

    python -m tests.benchmarks.conversion_table
    python -m tests.benchmarks.conversion_table --family Llama --format fp8

Every architecture that `pipeline.models.config_json` reads, as a tiny random checkpoint, through our own statistics,
quantization and conversion, in every layout. Columns:

ModelOpt       bytes equal to `export_tensorrt_llm_checkpoint`'s, but for the exceptions that test_oracle
               lists; only for families that it exports without TensorRT-LLM
logits         largest difference of a logit, of all layouts, the rank files run in plain torch (float32):
               unquantized from transformers' model, quantized from the same checkpoint on one rank;
               quantized activations jump by a step where a sum in another order crosses its edge, and
               fp8_rowwise takes a token's scale from the part of it that a rank holds
"""

import argparse
import copy
import multiprocessing
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from safetensors.torch import save_file
from torch._C._distributed_c10d import FileStore

from pipeline.checkpoint.layout_checks import reasons
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.engines.aoti.arch import read_arch
from pipeline.engines.aoti.decoder import Stage
from pipeline.engines.aoti.sizes import new_caches
from pipeline.engines.aoti.weights import bind
from pipeline.errors import EXIT_CODES, BuildFailed
from pipeline.models.config_json import read_shape, readers
from pipeline.weights.tensors import open_checkpoint
from recipes.formats import FORMATS
from recipes.precision import Precision
from tests import tiny
from tests.jobs import build_quantized as quantize
from tests.jobs import build_sharded as convert
from tests.jobs import build_statistics as measure
from tests.pipeline.checkpoint import test_oracle as oracle

LAYOUTS = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 1), (4, 1, 1), (2, 1, 2), (4, 1, 2)]
"""Tensor-parallel ranks, stages, and over how many of the ranks experts are spread, where there are any."""
REFUSALS: tuple[type[Exception], ...] = (RuntimeError, *EXIT_CODES)
"""RuntimeError: aoti's module has no such tensors."""
TOKENS = 24
SEED = torch.Generator().manual_seed(1)
ROOMY = {"device": "cpu", "gpu_bytes": 0, "host_bytes": 1 << 40}


def quiet(*event: Any) -> None:
    """Hears progress."""


def quantized(source: Path, fmt: str, place: Path) -> Path:
    """The checkpoint in a format, from our own statistics; the source itself where nothing is quantized."""
    if fmt == "none":
        return source
    statistics, out = place / "statistics", place / fmt
    if not statistics.exists():
        tokens = torch.randint(0, tiny.SIZES["vocab_size"], (8, 64), generator=SEED, dtype=torch.int32)
        for name in ("statistics", "set"):
            (place / name).mkdir()
        save_file({"tokens": tokens}, place / "set" / "tokens.safetensors")
        job = {
            "params": {"record": "all", "batch_size": 8, "device": "cpu", "tools": {}},
            "places": {"memory": ROOMY, "resume": str(place / "resume")},
            "inputs": {"source": str(source), "calibration_set": str(place / "set")},
        }
        measure(job, statistics, quiet)
    out.mkdir()
    inputs = {"source": str(source), "statistics": str(statistics)}
    quantize({"params": {"format": fmt, "kv_cache": "auto"}, "inputs": inputs}, out, quiet)
    (out / "tokenizer.json").write_text("{}")
    return out


def sharded(checkpoint: Path, fmt: str, layout: tuple[int, int, int], out: Path) -> Path:
    """The rank files."""
    out.mkdir()
    tp, pp, ep = layout
    params = {"format": fmt, "tp": tp, "pp": pp, "ep": ep, "layout_version": LAYOUT_VERSION}
    convert({"params": params, "places": {}, "inputs": {"checkpoint": str(checkpoint)}}, out, quiet)
    return out


def logits(directory: Path, tp: int, pp: int, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (B, T, V) of the rank files, run in plain torch: a process per tensor-parallel rank."""
    if tp == 1:
        return _run(directory, 0, pp, tokens)
    context = multiprocessing.get_context("fork")
    ranks = [
        context.Process(target=_rank, args=(directory, rank, (tp, pp), tokens), daemon=True)
        for rank in range(tp)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    if any(rank.exitcode for rank in ranks):
        raise BuildFailed(f"a rank of {directory.name} failed; its traceback is above")
    return torch.load(directory / "logits.pt")


def _rank(directory: Path, rank: int, layout: tuple[int, int], tokens: torch.Tensor) -> None:
    warnings.simplefilter("ignore")  # the compiled collective is called outside its compiler
    store = FileStore(str(directory / "store"), layout[0])
    dist.init_process_group("gloo", store=store, rank=rank, world_size=layout[0])
    found = _run(directory, rank, layout[1], tokens)
    if rank == 0:
        torch.save(found, directory / "logits.pt")
    dist.barrier()


@torch.no_grad()
def _run(directory: Path, rank: int, pp: int, tokens: torch.Tensor) -> torch.Tensor:
    """One tensor-parallel rank through all its stages."""
    arch, (batch, time) = read_arch(directory), tokens.shape
    positions, x = torch.arange(time).repeat(batch, 1), tokens
    for stage in range(pp):
        module = Stage(arch, torch.float32, stage, time, single=False)
        tensors = bind(directory, arch, stage * arch.tp + rank, torch.float32, time)
        module.load_state_dict({name: tensors[name] for name in module.state_dict()}, assign=True)
        caches = new_caches(arch, torch.float32, batch, time)
        x = module(x, positions, torch.arange(time), torch.arange(batch * time), caches)
    return x.unflatten(0, (batch, time))


def as_modelopt(family: str, fmt: str, place: Path) -> str:
    """Whether all layouts hold ModelOpt's bytes."""
    if family not in oracle.DECODERS:
        return "not exported"
    model, checkpoint = oracle.calibrated(family, fmt), place / f"modelopt-{fmt}"
    oracle.write_quantized(model, fmt, checkpoint)
    for tp, pp in oracle.LAYOUTS:
        theirs = place / f"theirs-{fmt}-{tp}-{pp}"
        with oracle.quiet():
            from modelopt.torch.export import export_tensorrt_llm_checkpoint

            export_tensorrt_llm_checkpoint(
                copy.deepcopy(model), oracle.DECODERS[family], export_dir=theirs,
                inference_tensor_parallel=tp, inference_pipeline_parallel=pp,
            )  # fmt: skip
        ours = sharded(checkpoint, fmt, (tp, pp, 1), place / f"ours-{fmt}-{tp}-{pp}")
        try:
            oracle.assert_same(fmt, *(oracle.rank_files(each, tp * pp) for each in (theirs, ours)))
        except AssertionError as exc:
            return f"differs: tp {tp} pp {pp} {str(exc).splitlines()[0]}"
    return "equal"


def rows(family: str, formats: list[str], place: Path) -> Iterator[tuple[str, ...]]:
    """One row per format."""
    with oracle.quiet():
        model = tiny.source(f"{family}ForCausalLM", place / "source")
    tokens = torch.randint(0, tiny.SIZES["vocab_size"], (2, TOKENS), generator=SEED)
    with torch.no_grad():
        expected = model(tokens).logits
    for fmt in formats:
        try:
            with oracle.quiet():
                checkpoint = quantized(place / "source", fmt, place)
        except tuple(EXIT_CODES) as exc:
            yield family, fmt, "", as_modelopt(family, fmt, place), f"not quantized: {_first(exc)}"
            continue
        found = dict(ran(checkpoint, fmt, tokens, place))
        one = expected if fmt == "none" else found[1, 1, 1]
        told = [
            f"{_words(*layout)} {value if isinstance(value, str) or isinstance(one, str) else _apart(value, one)}"
            for layout, value in found.items()
        ]
        scale = one if isinstance(one, str) else f"{one.std().item():.2f}"
        yield family, fmt, scale, as_modelopt(family, fmt, place), ", ".join(told)


def ran(
    checkpoint: Path, fmt: str, tokens: torch.Tensor, place: Path
) -> Iterator[tuple[tuple[int, int, int], torch.Tensor | str]]:
    """Every layout with its logits, or why there are none; a dash where the format cannot be cut so."""
    shape = read_shape(open_checkpoint(checkpoint).config)
    for tp, pp, ep in LAYOUTS:
        if ep > 1 and shape.experts is None:
            continue
        if reasons(shape, Precision.parse(fmt), tp, pp, ep):
            yield (tp, pp, ep), "-"
            continue
        try:
            out = sharded(checkpoint, fmt, (tp, pp, ep), place / f"{fmt}-{tp}-{pp}-{ep}")
            yield (tp, pp, ep), logits(out, tp, pp, tokens)
        except REFUSALS as exc:
            yield (tp, pp, ep), _first(exc)


def _words(tp: int, pp: int, ep: int) -> str:
    return f"{tp}x{pp}" + (f" ep {ep}" if ep > 1 else "")


def _apart(found: torch.Tensor, expected: torch.Tensor) -> str:
    return f"{(found - expected).abs().max().item():.0e}"


def _first(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}".splitlines()[0][:90]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [name.removesuffix("ForCausalLM") for name in readers()]
    parser.add_argument("--family", choices=known, nargs="*", default=known)
    parser.add_argument("--format", choices=FORMATS, nargs="*", default=list(FORMATS))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    head = ("family", "format", "logits' deviation", "bytes and ModelOpt's", "largest difference, tp x pp")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}", flush=True)
    for family in options.family:
        with tempfile.TemporaryDirectory(prefix="conversion-") as place:
            for row in rows(family, options.format, Path(place)):
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
