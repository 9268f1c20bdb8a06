"""Model directories that no honest program wrote are refused where plan reads them, soon and with little memory."""

import json
import os
import re
import shutil
import subprocess  # noqa: TID251 a command is measured from outside
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape, readers
from pipeline.models.shape import ModelShape
from pipeline.weights.tensors import Checkpoint, open_checkpoint
from tests.cases import BASE, lay_out
from tests.pipeline.models.absurd import CASES, CONFIG, INFINITY, WEIGHTS, fields, index
from tests.pipeline.models.config_witness import Recording, bare

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SECONDS, MEMORY_BYTES = 2.0, 500 << 20
"""Processor time, and memory, that a refusal may take."""

READ_ALL = """
import json, sys, time
from pathlib import Path
from pipeline.models.config_json import read_shape
from pipeline.errors import SourceError
from pipeline.models.generation_config import ends
from pipeline.weights.tensors import open_checkpoint

said = {}
for model in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        ends(model)
        said[model.name] = f"read: {read_shape(open_checkpoint(model).config, model)}"
    except SourceError as exc:
        said[model.name] = str(exc)
    said[model.name] = [said[model.name], time.process_time() - start]
status = Path("/proc/self/status").read_text()
print(json.dumps([said, int(status.partition("VmHWM:")[2].split()[0]) * 1024]))
"""
"""Reads every model below a directory as plan does, in one process."""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory):
    """What is said of each case and how long it took; memory of the process that read them all."""
    root = tmp_path_factory.mktemp("absurd")
    for name, (change, _) in CASES.items():
        change(Path(shutil.copytree(BASE / "model", root / name)))
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, root],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    said, memory = json.loads(done.stdout)
    return root, said, memory


@pytest.mark.parametrize("name", CASES)
def test_an_absurd_model_is_refused_by_file_and_value(refusals, name: str):
    root, said, _ = refusals
    message, seconds = said[name]
    assert message.startswith(f"{root / name}/")
    assert re.search(CASES[name][1], message)
    assert len(message) < 1500
    assert seconds < SECONDS


def test_absurd_models_take_little_memory(refusals):
    _, _, memory = refusals
    assert memory < MEMORY_BYTES


@pytest.mark.parametrize(
    "name",
    ["config: a FIFO", "config: 40 MB", "header: values", "epsilon NaN", "index: a number for a file"],
)
def test_plan_refuses_them_with_2_and_the_users_path(tmp_path: Path, name: str):
    recipe = lay_out("system-empty", tmp_path)
    CASES[name][0](tmp_path / "model")
    code, out, seconds = limited(["--store", tmp_path / "store", "plan", recipe], tmp_path)
    assert code == 2, out
    assert re.search(rf"model: {tmp_path}/model/.*", out)
    assert re.search(CASES[name][1], re.sub(r"\s+", " ", out))
    assert seconds < SECONDS


def test_numbers_that_nobody_reads_may_be_infinite(tmp_path: Path):
    recipe = lay_out("rope-both-fields", tmp_path)
    shutil.copy(BASE / "model" / CONFIG, tmp_path / "model")
    (tmp_path / "model" / WEIGHTS).unlink()
    fields(unread=INFINITY)(tmp_path / "model")
    code, out, _ = limited(["--store", tmp_path / "store", "plan", recipe], tmp_path)
    assert (code, "Traceback" in out) == (4, False), out
    assert "model.path: ./model holds config.json and no weights" in out


LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY_BYTES}, {MEMORY_BYTES}))
from pipeline.cli.main import main
main()
"""
"""The command line in a process that gets no more memory; its peak would count that of the test before it."""


def limited(arguments, place: Path) -> tuple[int, str, float]:
    """Exit code, output and processor seconds of `enginery ARGUMENTS`."""
    with (place / "out").open("w+b") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", LIMITED, *map(str, arguments)],
            stdout=out, stderr=out, cwd=ROOT, env={**os.environ, "COLUMNS": "400"},
        )  # fmt: skip
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, (place / "out").read_text(), used.ru_utime + used.ru_stime


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["silu", "yarn", "linear", "bfloat16", "full_attention", 10**18, 64, 8, 4, 1])
)  # fmt: skip
NAMES = st.text(max_size=6) | st.sampled_from(
    ["rope_type", "type", "factor", "rope_theta", "full_attention", "sliding_attention", "dtype", "shape"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def fields_read() -> list[str]:
    """Every field that any reader asks for."""
    read = set()
    for architecture in readers():
        config = Recording(bare(architecture))
        read_shape(config)
        read |= config.read
    return sorted(read)


@given(
    st.sampled_from(sorted(readers())), st.dictionaries(st.sampled_from(fields_read()), VALUES, max_size=4)
)
@settings(max_examples=500, deadline=None)
def test_any_config_is_a_shape_or_a_refusal(architecture, change):
    said = outcome(lambda: read_shape(bare(architecture) | change))
    assert isinstance(said, ModelShape) or said.startswith("config.json: ")


def outcome(read):
    """What is read, or what is said instead."""
    try:
        return read()
    except SourceError as exc:
        return str(exc)


@given(
    change=st.dictionaries(st.sampled_from(["x", "weight_map", "__metadata__"]), VALUES, max_size=3) | VALUES
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "index"])
def test_any_json_is_a_checkpoint_or_a_refusal(tmp_path: Path, name: str, change):
    model = tmp_path / "model"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(BASE / "model", model)
    data = json.dumps(change).encode()
    if name == "index":
        index(data)(model)
    else:
        (model / name).write_bytes(data if name == CONFIG else len(data).to_bytes(8, "little") + data)
    said = outcome(lambda: open_checkpoint(model))
    assert isinstance(said, Checkpoint) or said.startswith(f"{model}")
