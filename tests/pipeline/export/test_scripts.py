"""Start scripts, run by a real shell with stand-ins for the programs of a server's environment."""

import json
import os
import signal
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.backend.deployment import Deployment
from pipeline.export import exporters
from pipeline.export.export_settings import parse_settings
from pipeline.export.export_writer import write_export
from tests.pipeline.export import published

pytestmark = pytest.mark.slow

RECORD = (
    f"#!{sys.executable}"
    + """
import json, os, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
root = next((w.partition("=")[2] for w in words if w.startswith("--model-repository=")), None)
tree = sorted(os.path.relpath(os.path.join(d, f), root) for d, _, fs in os.walk(root) for f in fs) if root else []
env = {name: os.environ.get(name) for name in ("TLLM_AUTOTUNER_CACHE_PATH", "TRTLLM_NO_USAGE_STATS", "VLLM_NO_USAGE_STATS")}
cache = env["TLLM_AUTOTUNER_CACHE_PATH"]
writable = bool(cache) and os.stat(cache).st_mode & 0o200 != 0
json.dump({"argv": words, "tree": tree, "env": env, "writable": writable}, open(os.environ["RECORD"], "w"))
"""
)
"""Stands for a server: says how it was called, and what its repository holds."""

SLEEPS = """#!/usr/bin/env bash
trap 'echo ended > "$RECORD"; exit 7' TERM
echo started > "$RECORD"
while true; do sleep 0.05; done
"""

MODELS = ("preprocessing", "postprocessing", "tensorrt_llm_bls")


def program(path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An environment like the container's: programs, NVIDIA's templates, two H100 GPUs."""
    for name in ("mpirun", "tritonserver", "trtllm-serve", "vllm"):
        program(tmp_path / "bin" / name, RECORD)
    environment(tmp_path, version="0.16.0")
    for name in MODELS:
        (tmp_path / "templates" / name / "1").mkdir(parents=True)
        (tmp_path / "templates" / name / "1" / "model.py").write_text(f"# NVIDIA's, of {name}\n")
    (tmp_path / "templates" / "tensorrt_llm").mkdir()
    names = ' name: "min_length" name: "random_seed" '
    (tmp_path / "templates" / "tensorrt_llm" / "config.pbtxt").write_text(names)
    (tmp_path / "templates" / "1").mkdir()
    (tmp_path / "templates" / "1" / "model.py").write_text("# NVIDIA's, of the LLM API\n")
    return tmp_path


def environment(root: Path, *, version: str, capabilities=("9.0", "9.0")) -> None:
    """What the scripts ask the environment: TensorRT-LLM's version, and the GPUs."""
    rows = " ".join(capabilities)
    real = "#!/usr/bin/env bash\n"
    asked = f'case "$*" in *tensorrt_llm*) echo {version};; *) exit 1;; esac'
    program(root / "asked" / "python3", f"{real}{asked}\n")
    program(root / "asked" / "nvidia-smi", f'{real}printf "%s\\n" {rows}\n')


def write(place: Path, deployment: Deployment, target: str, *pairs, files: str = "link") -> list[str]:
    chosen = exporters.exporter(target)
    settings = parse_settings(chosen.settings, pairs, root=str(place / "out"), files=files)
    texts, trees = exporters.export(target, deployment, settings)
    return write_export(place / "out", texts, trees, settings)


def start(place: Path, **env):
    """Runs serve.sh; returns the finished process and what the server recorded."""
    record = place / "record.json"
    path = f"{place / 'asked'}:{place / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(place / "out" / "serve.sh")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": path, "RECORD": str(record), "TEMPLATES": str(place / "templates"), **env},
    )
    return done, json.loads(record.read_text()) if record.exists() else None


def test_triton_starts_a_process_per_rank_on_a_whole_repository(place: Path):
    write(place, published.deployment(published.ENGINE_FP8_TP2, place / "store"), "triton")
    done, record = start(place)
    assert done.returncode == 0, done.stderr
    argv = record["argv"]
    assert argv[:2] == ["mpirun", "--allow-run-as-root"]
    assert argv.count("tritonserver") == 2
    first, second = argv[: argv.index(":")], argv[argv.index(":") :]
    assert "--load-model=tensorrt_llm" in second
    assert not [word for word in first if word.startswith("--load-model")]
    for name in MODELS:
        assert {f"{name}/config.pbtxt", f"{name}/1/model.py"} <= set(record["tree"])
    assert {"tensorrt_llm/config.pbtxt", "ensemble/config.pbtxt"} <= set(record["tree"])


@pytest.mark.parametrize(
    ("version", "capabilities", "reason"),
    [
        (
            "0.17.0",
            ("9.0", "9.0"),
            "the engine was built by TensorRT-LLM 0.16.0; this environment has 0.17.0",
        ),
        ("0.16.0", ("8.0", "8.0"), "the engine needs compute capability 9.0; here: 8.0"),
        ("0.16.0", ("9.0",), "the engine has 2 ranks; GPUs here: 1"),
    ],
)
def test_a_wrong_environment_is_refused_before_the_server_starts(
    place: Path, version: str, capabilities: tuple[str, ...], reason: str
):
    write(place, published.deployment(published.ENGINE_FP8_TP2, place / "store"), "triton")
    environment(place, version=version, capabilities=capabilities)
    done, record = start(place)
    assert (done.returncode, record) == (4, None)
    assert f"error: {reason}" in done.stderr


def test_a_container_with_other_tensor_names_is_refused(place: Path):
    write(place, published.deployment(published.ENGINE_FP8_TP2, place / "store"), "triton")
    (place / "templates" / "tensorrt_llm" / "config.pbtxt").write_text(' name: "min_tokens" ')
    done, record = start(place)
    assert (done.returncode, record) == (4, None)
    assert "know no tensor min_length" in done.stderr


def test_a_moved_export_is_refused(place: Path):
    write(place, published.deployment(published.ENGINE_FP8_TP2, place / "store"), "triton")
    (place / "out").rename(place / "moved")
    (place / "out").mkdir()
    (place / "moved" / "serve.sh").rename(place / "out" / "serve.sh")
    done, record = start(place)
    assert (done.returncode, record) == (4, None)
    assert "engine/config.json is missing; put the export in its place" in done.stderr


def test_trtllm_serve_gets_a_writable_copy_of_the_autotuners_cache(place: Path):
    environment(place, version="1.1.0")
    write(place, published.deployment(published.TORCH_FP8_TP2, place / "store"), "trtllm-serve")
    done, record = start(place)
    assert done.returncode == 0, done.stderr
    assert record["argv"][:2] == ["trtllm-serve", str(place / "out" / "checkpoint")]
    assert record["env"]["TRTLLM_NO_USAGE_STATS"] == "1"
    assert record["writable"]
    assert not record["env"]["TLLM_AUTOTUNER_CACHE_PATH"].startswith(str(place / "out"))


def test_the_llm_api_repository_holds_nvidias_program_and_our_options(place: Path):
    environment(place, version="1.1.0")
    write(place, published.deployment(published.TORCH_FP8_TP2, place / "store"), "triton")
    done, record = start(place)
    assert done.returncode == 0, done.stderr
    wanted = ["tensorrt_llm/1/model.py", "tensorrt_llm/1/model.yaml", "tensorrt_llm/config.pbtxt"]
    assert record["tree"] == wanted


def test_vllm_is_started_without_telemetry(place: Path):
    write(place, published.deployment(published.ENGINE_FP8_TP2, place / "store"), "vllm", files="reference")
    done, record = start(place)
    assert done.returncode == 0, done.stderr
    assert record["argv"][:2] == ["vllm", "serve"]
    assert record["argv"][2].startswith(str(place / "store"))
    assert record["env"]["VLLM_NO_USAGE_STATS"] == "1"


def test_a_signal_reaches_the_server_and_the_script_ends_as_it_ends(place: Path):
    program(place / "bin" / "vllm", SLEEPS)
    deployment = published.deployment(published.ENGINE_FP8_TP2, place / "store")
    write(place, replace(deployment, tp=1), "vllm")
    record = place / "record.json"
    child = subprocess.Popen(
        ["bash", str(place / "out" / "serve.sh")],
        env={"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "RECORD": str(record)},
    )
    for _ in range(200):
        if record.exists() and record.read_text():
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 7
    assert record.read_text() == "ended\n"
