"""Times conversion against `cp` of the same bytes, alternating in one run, and measures its peak memory.

    python -m tests.benchmarks.conversion --gb 2 --format none fp8

Makes a checkpoint of Llama-3.1-8B's layers (as many as fit the size) in the current directory, needs twice
its size on disk, and deletes everything it made. Caches are as they come. A conversion is the whole step,
its checks and its ranks' processes included, memory theirs together; only the first interpreter's start is
not timed. One GB/s is 1e9 bytes of weight files per second; `of cp` is the median of the pairs' ratios.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess  # noqa: TID251 a benchmark times `cp`
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.convert import ONES
from pipeline.checkpoint.slicing import plan
from pipeline.checkpoint.tensor_parts import Slice
from pipeline.models.config_json import read_shape
from pipeline.process import process
from pipeline.run.resharding import Found, Layout, order
from pipeline.weights.tensor_writer import PIECE_BYTES, TensorPlan, write_safetensors
from pipeline.weights.tensors import item_bytes
from recipes.formats import FORMATS
from recipes.precision import Precision
from tests.pipeline.checkpoint.conftest import quantization_config, source_slices

LAYER_BYTES = 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}
ROOT = Path(__file__).resolve().parents[2]
CONVERT = """
import json, sys, time
from pathlib import Path
import pipeline.checkpoint.convert
from tests.jobs import build_sharded as build
job_file = Path(sys.argv[1])
job = json.loads(job_file.read_text())
start = time.perf_counter()
build(job, Path(job["out"]), lambda *event: None)
job_file.with_suffix(".seconds").write_text(str(time.perf_counter() - start))
"""
"""What the child runs; it imports no more than `pipeline.child.door` does, as its ranks' processes start like it."""
LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2), (8, 1)]
FILE_BYTES = 4 << 30
"""Size of one weight file; large checkpoints come in several."""


def make_checkpoint(directory: Path, size_gb: float, fmt: str) -> None:
    """Writes random weights and scales of one, split over files as large checkpoints are."""
    precision = Precision.parse(fmt)
    layer_bytes = LAYER_BYTES * FORMATS[fmt].weight_bits / 16
    config: dict[str, Any] = CONFIG | {
        "num_hidden_layers": 4 * max(1, round(size_gb * 1e9 / layer_bytes / 4))
    }
    block = quantization_config(precision, "auto", config["num_hidden_layers"])
    (directory / "config.json").write_text(json.dumps(config | block))
    (directory / "tokenizer.json").write_text("{}")
    slices = source_slices(plan(read_shape(config), precision, 1, 1)[0]).values()
    files: list[list[TensorPlan]] = [[]]
    for each in slices:
        if sum(tensor.nbytes for tensor in files[-1]) > FILE_BYTES:
            files.append([])
        files[-1].append(TensorPlan(each.source, each.dtype, each.shape, partial(noise, each)))
    weight_map: dict[Any, Any] = {}
    for number, group in enumerate(files):
        name = f"model-{number + 1:05}-of-{len(files):05}.safetensors"
        write_safetensors(directory / name, group)
        weight_map |= {tensor.name: name for tensor in group}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def noise(each: Slice):
    """Yields random bytes in pieces; of a scale, ones."""
    if "_scale" in each.source:
        yield np.full(each.shape, ONES[each.dtype], f"u{item_bytes(each.dtype)}")
        return
    left = math.prod(each.shape) * item_bytes(each.dtype)
    piece = np.random.default_rng(0).integers(0, 256, PIECE_BYTES, np.uint8)
    while left:
        yield piece[: min(left, PIECE_BYTES)]
        left -= min(left, PIECE_BYTES)


def time_cp(source: Path, target: Path) -> float:
    """Times `cp` of the weight files."""
    start = time.perf_counter()
    subprocess.run(["cp", *map(str, sorted(source.glob("*.safetensors"))), str(target)], check=True)
    return time.perf_counter() - start


def time_conversion(source: Path, target: Path, layout: tuple[int, int]) -> tuple[float, float]:
    """Returns seconds and peak MiB of a conversion in a child process; the interpreter's start is not timed."""
    asked = order(Found(source), Layout(tp=layout[0], pp=layout[1])).step.as_dict()
    job_file = target.parent / "job.json"
    job_file.write_text(json.dumps({**asked, "places": {}, "out": str(target)}))
    usage = process.run(
        process.Job(
            name="conversion",
            argv=[sys.executable, "-c", CONVERT, str(job_file)],
            log=target.parent / "log",
            timeout_s=3600,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    )
    return float(job_file.with_suffix(".seconds").read_text()), usage.peak_memory_bytes / 2**20


def emptied(directory: Path) -> Path:
    """Returns a new, empty directory, after everything written so far has reached the disk."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    os.sync()
    return directory


def measure(fmt: str, size_gb: float, pairs: int) -> None:
    """Alternates `cp` and conversion in every layout, and prints medians per layout."""
    with tempfile.TemporaryDirectory(dir=".", prefix="conversion-") as place:
        source = Path(place).resolve() / "source"
        source.mkdir()
        make_checkpoint(source, size_gb, fmt)
        size = sum(path.stat().st_size for path in source.glob("*.safetensors")) / 1e9
        for layout in LAYOUTS:
            seen = []
            for _ in range(pairs):
                copied = time_cp(source, emptied(source.parent / "target"))
                converted, peak = time_conversion(source, emptied(source.parent / "target"), layout)
                seen.append((size / copied, size / converted, copied / converted, peak))
            cp, ours, ratio = (statistics.median(column) for column in [*zip(*seen, strict=True)][:3])
            print(
                f"| {fmt} | {layout[0]} x {layout[1]} | {size:.2f} | {cp:.2f} | {ours:.2f} | {ratio:.2f} | "
                f"{max(row[3] for row in seen):.0f} |",
                flush=True,
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the options and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gb", type=float, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--format", choices=FORMATS, nargs="*", default=["none", "fp8", "int4_awq"])
    options = parser.parse_args(argv)
    print("| format | tp x pp | GB | cp GB/s | GB/s | of cp | peak MiB |\n|" + " --- |" * 7, flush=True)
    for fmt in options.format:
        measure(fmt, options.gb, options.pairs)


if __name__ == "__main__":
    main()
