"""Commands that read a version for long: a sweep meanwhile takes nothing from them."""

import os
import shutil
import signal
import subprocess  # noqa: TID251 the command is stopped from outside
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from tests.artifacts.sweeping import collect, publish
from tests.pipeline.checkpoint.conftest import make_checkpoint
from tests.pipeline.export import published
from tests.present import present

pytestmark = pytest.mark.slow

__all__ = ["make_checkpoint"]

ROOT = Path(__file__).resolve().parents[3]

STOPPING = """
import os, signal, sys
seen = []
def stop(event, args):
    if event == {event!r} and {of!r} in str(args) and not seen:
        seen.append(event)
        os.kill(os.getpid(), signal.SIGSTOP)
sys.addaudithook(stop)
from pipeline.cli.main import main
main()
"""
"""The command line, which stops itself right before it first does something, as in a debugger."""


@contextmanager
def stopped(event: str, of: str, store: LocalStore, *command: str | Path) -> Iterator[None]:
    """The command stands still at an event while the block runs; then it goes on and succeeds."""
    code = STOPPING.format(event=event, of=of)
    argv = [sys.executable, "-c", code, "--store", str(store.root), *map(str, command)]
    child = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), present(child.stderr).read()
        yield
        child.send_signal(signal.SIGCONT)
        _, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
    finally:
        child.kill()
        child.communicate()


def replaced(store: LocalStore) -> None:
    """Two newer versions, so that nothing but a lease keeps the first."""
    for number in (2, 3):
        key = f"{number:064x}"
        with store.write(key, kind="engine", step={}, host={}) as draft:
            (draft.path / "rank0.engine").write_text(f"{number}\n")
        publish(store, number, key, alias="prod")


@pytest.mark.parametrize(
    ("event", "of", "command"),
    [
        ("shutil.copyfile", "", ("export", "demo:1", "--to", "triton", "--copy", "--out", "OUT")),
        ("open", "rank0.engine", ("verify", "demo:1")),
    ],
)
def test_a_sweep_takes_nothing_of_a_version_that_is_being_read(
    tmp_path: Path, event: str, of: str, command: tuple[str, ...]
):
    store, record = published.publish(published.Version(name="demo"), tmp_path / "store")
    with stopped(event, of, store, *(tmp_path / "out" if word == "OUT" else word for word in command)):
        replaced(store)
        assert record.engine_key not in {one.key for one in collect(store).removed}
    assert record.engine_key in {one.key for one in collect(store).removed}


def test_a_sweep_takes_nothing_of_a_checkpoint_that_is_being_resharded(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
):
    store, key = open_store(tmp_path / "store"), "a" * 64
    with store.write(key, kind="quantized_checkpoint", step={}, host={}) as draft:
        shutil.copytree(make_checkpoint("fp8"), draft.path, dirs_exist_ok=True)
    with stopped(
        "subprocess.Popen", "pipeline.child.door", store, "reshard", key, tmp_path / "out", "--tp", "2"
    ):
        assert collect(store).removed == ()
    assert (tmp_path / "out" / "rank1.safetensors").is_file()
    assert [one.key for one in collect(store).removed] == [key]
