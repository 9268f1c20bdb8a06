"""Decode speed of built engines against transformers, eager and compiled, on this CPU.

    python -m tests.benchmarks.decode [--formats none int8_wo none/fp8] [--batches 1 8] [--model DIRECTORY]

All have the same model, cache length and thread count, and take turns in one process, so that a busy
machine slows all of them; what counts is the ratio. A token is one greedy step, argmax included.
`FORMAT/TYPE` is a format with a KV cache of that type; `mixed` has another format in every layer.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, StaticCache

from pipeline.engines.aoti.aoti_worker import Rank
from pipeline.engines.aoti.calls import Decoder
from recipes.formats import FORMATS
from recipes.precision import Precision
from tests.jobs import build_aoti as build
from tests.pipeline.engines.sharded import Toy

LENGTH, PROMPT, STEPS, ROUNDS = 256, 64, 32, 8
CASES = [*FORMATS, "none/fp8", "none/int8", "mixed"]
DEMO = Path(__file__).resolve().parents[2] / "recipes" / "demo" / "model"


def main() -> None:
    """Builds, measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--formats", nargs="+", default=CASES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = args.model or (DEMO if DEMO.is_dir() else _random(root / "source"))
        engines = {
            case: _engine(source, case, root / case.replace("/", "_"), max(args.batches), args.threads)
            for case in args.formats
        }
        for batch in args.batches:
            _compare(source, engines, batch)


def _random(directory: Path) -> Path:
    """Writes a random Llama of the demo model's shape."""
    config = LlamaConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4,
        intermediate_size=768, vocab_size=2048, max_position_embeddings=1024,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)
    (directory / "tokenizer.json").write_text("{}")
    return directory


def _engine(source: Path, case: str, root: Path, batch: int, threads: int) -> Path:
    root.mkdir()
    name, _, kv_cache = case.partition("/")
    layers = json.loads((source / "config.json").read_text())["num_hidden_layers"]
    fmt = _mixed(layers) if name == "mixed" else name
    sharded = Toy(source, Precision.parse(fmt), kv_cache or "auto").write(root / "sharded")
    params = {
        "format": fmt, "tp": 1, "pp": 1, "max_batch_size": batch, "max_seq_len": LENGTH,
        "options": {"threads": threads}, "toolchain": {},
    }  # fmt: skip
    out = root / "engine"
    out.mkdir()
    start = time.perf_counter()
    job = {"params": params, "places": {}, "inputs": {"sharded_checkpoint": str(sharded)}}
    build(job, out, lambda *_: None)
    print(f"built {case} in {time.perf_counter() - start:.0f} s", flush=True)
    return out


def _mixed(layers: int) -> dict[str, Any]:
    """A format after the other: the worst case of compile time."""
    names = list(FORMATS)
    turns = {f"model.layers.{layer}.*": names[layer % len(names)] for layer in range(layers)}
    return {"default": "fp8", "except": turns}


def _engine_steps(directory: Path, prompts: list[list[int]]) -> Callable[[], float]:
    rank = Rank(directory, 0, None)

    def run() -> float:
        decoder = Decoder(rank, prompts, {"temperature": 0.0, "seed": 0, "stop": ()})
        decoder.advance()
        return _timed(decoder.advance)

    return run


def _transformers_steps(source: Path, prompts: list[list[int]], *, compiled: bool) -> Callable[[], float]:
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).eval()
    tokens = torch.tensor(prompts)
    cache = StaticCache(config=model.config, max_cache_len=LENGTH)
    step = torch.compile(model, dynamic=False) if compiled else model

    @torch.inference_mode()
    def run() -> float:
        cache.reset()
        state = {
            "token": model(tokens, past_key_values=cache).logits[:, -1:].argmax(-1),
            "at": torch.full((1,), PROMPT),
        }

        def advance() -> None:
            position = state["at"].expand(len(prompts), -1)
            logits = step(state["token"], past_key_values=cache, position_ids=position).logits
            state["token"] = logits[:, -1:].argmax(-1)
            state["at"] = state["at"] + 1

        return _timed(advance)

    return run


def _timed(advance: Callable[[], object]) -> float:
    """Returns seconds of the median step."""
    gaps = []
    for _ in range(STEPS):
        start = time.perf_counter()
        advance()
        gaps.append(time.perf_counter() - start)
    return median(gaps)


def _compare(source: Path, engines: dict[str, Path], batch: int) -> None:
    vocab = json.loads((source / "config.json").read_text())["vocab_size"]
    prompts = torch.randint(0, vocab, (batch, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
    runs = {f"aoti {fmt}": _engine_steps(directory, prompts) for fmt, directory in engines.items()}
    runs["transformers eager"] = _transformers_steps(source, prompts, compiled=False)
    runs["torch.compile"] = _transformers_steps(source, prompts, compiled=True)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):
        for name, run in runs.items():
            found = run()
            if number:  # the first warms up and compiles
                seconds[name].append(found)
    best = {name: min(values) for name, values in seconds.items()}
    print(f"batch {batch}, {torch.get_num_threads()} threads")
    for name, value in best.items():
        eager, compiled = best["transformers eager"] / value, best["torch.compile"] / value
        print(
            f"  {name:20s} {1000 * value:8.3f} ms/step {batch / value:9.0f} tokens/s"
            f"   {eager:5.2f} x eager   {compiled:5.2f} x torch.compile",
            flush=True,
        )


if __name__ == "__main__":
    main()
