"""Pushes that are killed with SIGKILL before a step that they take on the disk."""

import json
import subprocess  # noqa: TID251 a process whose children are killed
import sys
from pathlib import Path

import pytest

from artifacts.client import Client
from tests.pipeline.exchange.conftest import NAME

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]

KILLED = """
import json, os, signal, sys
from pathlib import Path
from artifacts.client import Client
from pipeline.exchange import exchange, hf, oci_write
from pipeline.exchange.target import Layout
from pipeline.exchange.oci_read import survey, unpack

client, name, kind, work = Client(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
whole = work / "whole"


def changed(event, args):
    "What a step changes at or beside the destination; None for other steps."
    place = ""
    if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
        place = args[0]
    elif event in ("os.rename", "os.mkdir", "os.rmdir"):
        place = str(args[event == "os.rename"])
    return place if place.startswith(str(work)) else None


def push(at, dies_before=None):
    "Pushes in a process of its own; what its steps changed, or None if it died before the step of that number."
    child = os.fork()
    if child == 0:
        steps, code = [], 1

        def seen(event, args):
            if (place := changed(event, args)) is not None:
                if len(steps) == dies_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                steps.append(place)

        sys.addaudithook(seen)
        try:
            exchange.push(name, f"{kind}:{at}", client, None)
            code = 0
        finally:
            (work.parent / "steps").write_text(json.dumps(steps))
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return None
    assert os.WEXITSTATUS(status) == 0, status
    return json.loads((work.parent / "steps").read_text())


def held(at):
    "The files that a reader of the destination gets; None where there is nothing to read."
    if not at.exists() or (kind == "oci" and not oci_write.read_index(at)):
        return None
    out = at
    if kind == "oci":
        out = work.parent / f"read-{len(list(work.parent.iterdir()))}"
        out.mkdir()
        unpack(survey(Layout(at)), out)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


steps = push(whole)
wanted = held(whole)
there = [number for number, place in enumerate(steps) if place == str(whole) or place.startswith(f"{whole}/")]
complete = []
for number in sorted({0, there[0] // 2, *there[:3], *there[3:-3:4], *there[-3:], there[-1] + 1}):
    at = work / f"at{number}"
    assert push(at, number) is None
    left = held(at)
    assert left in (None, wanted), f"killed before step {number}, {steps[number]}: {sorted(left)}"
    complete.append(left is not None)
    if left is None:
        assert push(at)
        assert held(at) == wanted
        assert not list(work.glob(f".at{number}.*")), "what the dead one left beside it goes"
print(json.dumps(complete))
"""


@pytest.mark.parametrize(("kind", "steps"), [("hf", 4), ("oci", 9)])
def test_a_killed_push_leaves_nothing_or_all_and_the_next_one_succeeds(
    client: Client, kind: str, steps: int, tmp_path: Path
):
    work = tmp_path / "out" / "there"
    work.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, client.store.root, NAME, kind, work],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    complete = json.loads(done.stdout)
    assert len(complete) >= steps
    assert complete == [False] * (len(complete) - 1) + [True], "whole from its last step on"
