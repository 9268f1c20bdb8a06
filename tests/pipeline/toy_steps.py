"""A plan whose steps take a moment: their artifacts hold just what the gate and the registry read."""

import json
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from artifacts.registry.registry import Registry
from calibration.job import NoPlaces
from calibration.quantize.coverage import Linear, document
from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape
from pipeline.plan.plan import Plan, Trial
from pipeline.process.meter import Progress
from pipeline.run.release import Outcome, run_plan
from pipeline.step.judged import JUDGEMENTS, build_of
from pipeline.step.realize import Listener, Site, realize
from pipeline.step.step import Kind, Step
from pipeline.step.step_parameters import EnginePlaces
from recipes.schema import Recipe
from tests.pipeline.toy import ToyJob, ToyParams

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
    "intermediate_size": 128, "vocab_size": 256, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "torch_dtype": "bfloat16",
}  # fmt: skip

INPUTS: dict[Kind, dict[str, Kind]] = {
    "source": {},
    "calibration_set": {"source": "source"},
    "quantized_checkpoint": {"source": "source", "calibration_set": "calibration_set"},
    "sharded_checkpoint": {"checkpoint": "quantized_checkpoint"},
    "engine": {"sharded_checkpoint": "sharded_checkpoint"},
    "measurement": {"engine": "engine"},
    "baseline": {"source": "source"},
    "evaluation": {"engine": "engine", "baseline": "baseline"},
}


CHILD = "tests.pipeline.toy_child"
"""What makes the steps of such plans; a site's `child`."""


def toy_plan(recipe: Recipe, file: Path) -> Plan:
    """Every kind of step once; `engine.options` of the recipe say what they do."""
    made: dict[Kind, Step] = {}
    for kind, inputs in INPUTS.items():
        made[kind] = step(kind, {role: made[one].key for role, one in inputs.items()}, recipe.engine.options)
    steps = tuple(made.values())
    return Plan(recipe=recipe, file=file, steps=steps, trials=trials(recipe), shape=read_shape(CONFIG))


def step(kind: Kind, inputs: Mapping[str, str], params: Mapping[str, Any]) -> Step:
    """One small step."""
    what = f"a toy of a {kind}"
    places = EnginePlaces() if kind == "engine" else NoPlaces()
    asked = ToyParams(kind=kind, **params)
    return Step(kind=kind, variant="toy", inputs=inputs, params=asked, places=places, what=what)


def run(plan: Plan, site: Site, registry: Registry, listener: Listener) -> Outcome:
    """Runs a plan as the command line does."""
    return run_plan(plan, site, registry, lambda step: realize(step, site, listener))


def trials(recipe: Recipe) -> tuple[Trial, ...]:
    """One trial per value that the recipe searches; the build of `0` crashes."""
    made = []
    for value in recipe.tune.space["max_batch_size"] if recipe.tune else ():
        engine = step("engine", {}, {"crash": value == 1, "max_batch_size": value})
        measurement = step("measurement", {"engine": engine.key}, {})
        made.append(Trial(point={"max_batch_size": value}, engine=engine, measurement=measurement))
    return tuple(made)


def build(job: ToyJob, progress: Progress) -> None:
    """Writes what the gate and the registry read of an artifact of this kind."""
    params, out = job.params.asked, job.out
    kind = params["kind"]
    for done in range(10):
        progress(done, 10, "tensors")
        time.sleep(params.get("seconds", 0.0) / 10)
    if kind == params.get("broken"):
        raise SourceError("model.safetensors: 7 of 9 bytes; fetch it again\n  detail: on purpose")
    if params.get("crash"):
        raise RuntimeError("out of registers, on purpose")
    if kind == params.get("hang"):
        Path(params["pid_file"]).write_text(str(os.getpid()))
        time.sleep(600)
    for name, text in FILES.get(kind, lambda _: {"toy.txt": kind})(params).items():
        (out / name).write_text(text)
    if kind in JUDGEMENTS and "engine" in job.inputs:
        said = json.loads((out / JUDGEMENTS[kind]).read_text())
        (out / JUDGEMENTS[kind]).write_text(json.dumps({**said, **build_of(job.inputs["engine"])}))
    if kind == "engine":
        never_the_same(params, out)
    progress(10, 10, "tensors")


def never_the_same(params: Mapping[str, Any], out: Path) -> None:
    """What differs from build to build: timings always, and with `nonce` the engine, as TensorRT's does."""
    if params.get("nonce"):
        (out / "rank0.engine").write_text(secrets.token_hex())
    (out / "tuning").mkdir()
    (out / "tuning" / "times.json").write_text(json.dumps({"seconds": time.monotonic()}))
    (out / "tuning" / "trials.png").write_bytes(png(640, 240))
    (out / "tuning" / "trials.json").write_text(json.dumps(TRIALS))


def engine_files(params: Mapping[str, Any]) -> dict[str, str]:
    """What an engine says of itself."""
    built = {
        "backend": "toy", "format": "fp8", "dtype": "bfloat16", "tp": 1, "pp": 1, "world_size": 1,
        "max_batch_size": 4, "max_seq_len": 128, "device": "cpu", "toolchain": {"cpu": "avx2"}, "weight_bytes": {"0": 9},
        "kv_cache": "bfloat16", "memory_bytes_per_rank": [12],
    }  # fmt: skip
    return {"engine.json": json.dumps(built)}


def measurement_files(params: Mapping[str, Any]) -> dict[str, str]:
    """A measurement of one batch size."""
    row = dict.fromkeys(("ttft_ms_p50", "ttft_ms_p95", "itl_ms_p50", "itl_ms_p95"), 1.5)
    rows = [{"batch_size": 4, "tokens_per_s": 800.0, "tokens_per_s_per_user": 200.0, **row}]
    return {"measurement.json": json.dumps({"rows": rows})}


def evaluation_files(params: Mapping[str, Any]) -> dict[str, str]:
    """Records of 16 samples whose KL divergence per token is what the params say."""
    kl = params.get("kl", 0.001)
    rows = [
        {
            "tokens": 100,
            "baseline_nll": 200.0 + n,
            "engine_nll": 200.1 + n,
            "kl": 100 * kl + n / 1e3,
            "agreed": 99,
        }
        for n in range(16)
    ]
    return {"samples.jsonl": "".join(json.dumps(row) + "\n" for row in rows), "scores.json": "{}\n"}


TRIALS = {
    "objective": "throughput",
    "chosen": 1,
    "trials": [
        {"point": {"max_batch_size": 1}, "measurement": None, "why": "out of registers"},
        {
            "point": {"max_batch_size": 4},
            "measurement": {"rows": [{"tokens_per_s": 800.25, "tokens_per_s_per_user": 200.0}]},
            "why": "",
        },
    ],
}


def checkpoint_files(params: Mapping[str, Any]) -> dict[str, str]:
    """Coverage of two linears that differ in their layer."""
    linears = [
        Linear(
            module=f"model.layers.{n}.mlp.up_proj",
            intended="fp8",
            actual="fp8",
            scales={"weight_scale": (n, 2)},
        )
        for n in (1, 2)
    ]
    return {"coverage.json": json.dumps(document("fp8", linears, {}, {}))}


FILES: dict[str, Callable[[Mapping[str, Any]], dict[str, str]]] = {
    "quantized_checkpoint": checkpoint_files,
    "engine": engine_files,
    "measurement": measurement_files,
    "evaluation": evaluation_files,
}


def png(width: int, height: int) -> bytes:
    """A plain picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((40, 120, 200)) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
