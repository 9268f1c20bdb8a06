"""What tests/benchmarks/calibration.py measures, each part in a process of its own."""

import argparse
import copy
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from recipes.precision import Precision
from tests.benchmarks import synthetic

WARM = {"num_hidden_layers": 1, "vocab_size": 1024}
"""What warms a part up: one layer of the same shape, on which kernels are loaded and compiled."""
BATCH_TOKENS = {"cuda": 16384, "cpu": 2048}
"""Of the forward pass and of ModelOpt's passes; more is no faster."""


def measure(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, peak memory in GB, and a note."""
    kind, _, name = part.partition(":")
    directory = Path(options.directory).resolve()
    if options.device == "cuda":
        torch.zeros(1, device="cuda")
    seconds, note = _KINDS[kind](name, directory, options)
    gpu = torch.cuda.max_memory_reserved() / 1e9 if options.device == "cuda" else 0.0
    return {"seconds": seconds, "gpu_gb": gpu, "host_gb": peak_host_gb(), "note": note}


def peak_host_gb() -> float:
    """Highest resident memory of this process; what getrusage says may be its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall time of some work, the device's included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def forward(name: str, directory: Path, options: argparse.Namespace) -> tuple[float, str]:
    """The whole model in transformers, without its head, weights in memory."""
    model, tokens_ST = load(directory, options), load_tokens(directory)
    push(model, tokens_ST[:2], options)
    return seconds_of(lambda: push(model, tokens_ST, options)), "weights already in memory"


def ranges(name: str, directory: Path, options: argparse.Namespace) -> tuple[float, str]:
    """Our statistics without AWQ's search, from files to files."""
    return statistics("ranges", directory, options)


def everything(name: str, directory: Path, options: argparse.Namespace) -> tuple[float, str]:
    """Our statistics with AWQ's search, from files to files."""
    return statistics("all", directory, options)


def statistics(record: str, directory: Path, options: argparse.Namespace) -> tuple[float, str]:
    """One pass, which reads the weights layer by layer within the caps."""
    from tests.jobs import build_statistics as build

    config = synthetic.config(options.shape, options.layers)
    job = statistics_job(directory, config, options, record)
    batch = job["params"]["batch_size"]
    with tempfile.TemporaryDirectory(dir=directory) as place:
        warm = Path(place)
        synthetic.write(config | WARM, warm / "source")
        synthetic.write_calibration_set(WARM["vocab_size"], batch, options.seq_len, warm / "calibration_set")
        build(statistics_job(warm, config, options, record), emptied(warm / "out"), quiet)
    out = emptied(directory / f"statistics-{record}")
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(lambda: build(job, out, quiet))
    return seconds, f"reads the weights; batches of {batch} x {options.seq_len} tokens"


def statistics_job(
    root: Path, config: Mapping[str, Any], options: argparse.Namespace, record: str
) -> dict[str, Any]:
    """The job that `plan` would make for these caps."""
    from calibration.statistics.budget import Budget, Sizes, batch_size

    sizes = Sizes(
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        q_size=config["num_attention_heads"] * config["head_dim"],
        kv_size=config["num_key_value_heads"] * config["head_dim"],
        vocab_size=config["vocab_size"],
        element_bytes=2,
    )
    caps = {"gpu_bytes": int(options.gpu_gb * 1e9), "host_bytes": int(options.host_gb * 1e9)}
    budget = Budget(device=options.device, **caps)
    batch = batch_size(sizes, options.seq_len, budget, search=record == "all")
    params = {"record": record, "batch_size": batch, "device": options.device, "tools": {}}
    inputs = {name: str(root / name) for name in ("source", "calibration_set")}
    places = {"memory": asdict(budget), "resume": str(emptied(root / "resume"))}
    return {"params": params, "places": places, "inputs": inputs}


def derive(name: str, directory: Path, options: argparse.Namespace) -> tuple[float, str]:
    """One format's scales from the recorded statistics; the weights are rounded when they are written."""
    from calibration.model.checkpoint_reader import Source
    from calibration.parameters import QuantizedParams
    from calibration.quantize.quantize import derive_findings
    from calibration.statistics.statistics_artifact import Statistics

    def work() -> None:
        source = Source.open(directory / "source")
        params = QuantizedParams(format=Precision.parse(name), kv_cache="auto", tools={})
        derive_findings(source, Statistics(directory / "statistics-all"), params)

    return seconds_of(work), "scales; rounding the weights is part of writing them"


def modelopt(name: str, directory: Path, options: argparse.Namespace) -> tuple[float, str]:
    """`mtq.quantize` with the format's preset on the model in memory."""
    tokens_ST = load_tokens(directory)
    config = synthetic.config(options.shape, options.layers)
    warm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**(config | WARM)))
    warm = warm.to(options.device, torch.bfloat16).eval()
    quantize(warm, name, tokens_ST[:2] % WARM["vocab_size"], options)
    del warm
    layers = config["num_hidden_layers"]
    taken = min(options.modelopt_layers, layers)
    model = load(directory, options, taken)
    seconds = seconds_of(lambda: quantize(model, name, tokens_ST, options)) * layers / taken
    return (
        seconds,
        "weights already in memory" if taken == layers else f"{taken} of {layers} layers, multiplied",
    )


def quantize(model: Any, name: str, tokens_ST: torch.Tensor, options: argparse.Namespace) -> None:
    """Calibrates in place."""
    import modelopt.torch.quantization as mtq

    from recipes.formats import FORMATS

    preset = copy.deepcopy(getattr(mtq, FORMATS[name].modelopt_cfg))
    mtq.quantize(model, preset, lambda model: push(model, tokens_ST, options))


def push(model: Any, tokens_ST: torch.Tensor, options: argparse.Namespace) -> None:
    """Runs the tokens through the layers."""
    batch = max(1, BATCH_TOKENS[options.device] // options.seq_len)
    with torch.inference_mode():
        for batch_BT in tokens_ST.split(batch):
            model.base_model(input_ids=batch_BT.to(model.device), use_cache=False)


def load(directory: Path, options: argparse.Namespace, layers: int | None = None) -> Any:
    """The model on the device, with its first layers only where asked."""
    changes = {"num_hidden_layers": layers} if layers else {}
    model = AutoModelForCausalLM.from_pretrained(
        directory / "source", dtype="auto", local_files_only=True, device_map=options.device, **changes
    )
    return model.eval()


def load_tokens(directory: Path) -> torch.Tensor:
    tokens_ST: torch.Tensor = load_file(directory / "calibration_set" / "tokens.safetensors")["tokens"]
    return tokens_ST.long()


def emptied(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory


def quiet(done: int, total: int, unit: str) -> None:
    """Progress that nobody watches."""


_KINDS = {
    "forward": forward,
    "ranges": ranges,
    "all": everything,
    "derive": derive,
    "modelopt": modelopt,
}
warnings.filterwarnings("ignore")
