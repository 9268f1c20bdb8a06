"""Engine steps of backend `tensorrt` with the contract toolchain, on tiny checkpoints."""

import json
import os
import subprocess  # noqa: TID251 a step is killed from outside
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.backend.build_request import BuildRequest
from pipeline.engines.tensorrt import rules
from pipeline.engines.tensorrt.capabilities import table
from pipeline.engines.tensorrt.tensorrt_options import options_model
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from pipeline.process import process
from pipeline.process.host import Gpu, Host
from pipeline.process.meter import Progress
from pipeline.toolchains.discovery import discover
from pipeline.toolchains.toolchain import Choice, Toolchain
from recipes.precision import Precision
from recipes.schema import Engine, Speculative

ROOT = Path(__file__).resolve().parents[3]
H100 = Gpu("NVIDIA H100 80GB HBM3", 90, 81559 << 20, "550.54.15")
HOST = Host(gpus=(H100, H100), cpu="avx512f", cores=2, memory_bytes=256 << 30, tools={})


def found(root: Path, launcher: str = "trtllm-build") -> Toolchain:
    """The toolchain in a directory, declared and probed as on any host."""
    file = root.parent / f"{root.name}.yaml"
    entry = {"environment": str(root), "launcher": launcher}
    file.write_text(json.dumps({"version": 1, "toolchains": {"contract": entry}}))
    (one,) = discover(None, {"PATH": "/nonexistent", "ENGINERY_TOOLCHAINS": str(file)})
    assert one.problem == "", one.problem
    return one


def job(
    toolchain: Toolchain,
    source: Path,
    checkpoint: Path,
    *,
    format: str = "none",  # noqa: A002 the recipe's word
    speculative: Speculative | None = None,
    drafting: tuple[Path, Path] | None = None,
    earlier: Path | None = None,
    **engine: Any,
) -> dict[str, Any]:
    """What the planner would hand to the builder; `drafting` is source and checkpoint of the draft model."""
    asked = Engine(
        backend="tensorrt", target="h100", **{"max_batch_size": 4, "max_seq_len": 64, "tp": 1, **engine}
    )
    wanted = BuildRequest(
        engine=asked,
        shape=_shape(source),
        precision=Precision.parse(format),
        kv_cache="auto",
        host=HOST,
        speculative=speculative,
        draft=_shape(drafting[0]) if drafting else None,
        choice=Choice(toolchain=toolchain),
    )
    options = options_model(table(toolchain.version)).model_validate(asked.options)
    params = {
        "backend": "tensorrt", "format": format, "kv_cache": "auto", "target": asked.target, "tp": asked.tp,
        "pp": asked.pp, "ep": asked.ep, "max_batch_size": asked.max_batch_size,
        "max_seq_len": asked.max_seq_len, "options": rules.resolve_settings(wanted, options).as_param(),
        "toolchain": {"versions": dict(toolchain.versions), "gpu": H100.name, "sm": 90, "driver": H100.driver},
    }  # fmt: skip
    inputs = {"sharded_checkpoint": str(checkpoint)}
    if drafting:
        inputs["draft_checkpoint"] = str(drafting[1])
    places = {"toolchain": toolchain.as_dict()} | ({"tuning": str(earlier)} if earlier else {})
    return {
        "kind": "engine.tensorrt", "params": params, "places": places, "inputs": inputs,
    }  # fmt: skip


def run(work: Mapping[str, Any], out: Path, on_progress: Progress | None = None) -> process.Usage:
    """Runs a step as the pipeline does; its toolchain's programs stand first on PATH, for nvidia-smi."""
    return process.run(_job(work, out), on_progress)


@contextmanager
def running(work: Mapping[str, Any], out: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The process that runs a step, to be killed."""
    one = _job(work, out)
    code = (
        "import sys, json; from pathlib import Path; from pipeline.process.process import Job, run; "
        "run(Job(name='engine', argv=json.loads(sys.argv[1]), log=Path(sys.argv[2]), timeout_s=60, "
        "env=json.loads(sys.argv[3])))"
    )
    argv = [sys.executable, "-c", code, json.dumps(list(one.argv)), str(one.log), json.dumps(dict(one.env))]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL) as caller:
        yield caller


def _job(work: Mapping[str, Any], out: Path) -> process.Job:
    out.mkdir(parents=True, exist_ok=True)
    file = out.with_name(f"{out.name}.job.json")
    file.write_text(json.dumps({**work, "out": str(out)}))
    programs = Path(work["places"]["toolchain"]["location"]) / "bin"
    return process.Job(
        name="engine",
        argv=[sys.executable, "-m", "pipeline.child.door", str(file)],
        log=out.with_name(f"{out.name}.log"),
        timeout_s=60,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
    )


def refused(work: Mapping[str, Any], out: Path, kind: type[Exception], *said: str) -> str:
    """Runs a step that fails in this way; returns its message."""
    with pytest.raises(kind) as caught:
        run(work, out)
    for text in said:
        assert text in str(caught.value)
    return str(caught.value)


def read(out: Path, name: str) -> Any:
    return json.loads((out / name).read_text())


def _shape(source: Path) -> ModelShape:
    return read_shape(json.loads((source / "config.json").read_text()))
