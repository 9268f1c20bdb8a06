"""pull from the shell: following an alias."""

import os
import signal
import subprocess  # noqa: TID251 the command is stopped by a signal, as people do
import sys
import time
from pathlib import Path

import pytest

from artifacts.client import Client
from tests.callables import Cli
from tests.pipeline.published import publication

ROOT = Path(__file__).resolve().parents[3]
NAME = "llama/fp8_tp2"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """A store with two versions, the first in prod."""
    client = Client(str(tmp_path / "store"))
    for seed in (1, 2):
        made = publication(NAME, seed=seed)
        with client.store.write(made.engine_key, kind="engine", step={}, host={}) as draft:
            (draft.path / "rank0.bin").write_bytes(b"engine" * seed)
        digest = client.store.manifest(made.engine_key).digest
        client.registry.publish(publication(NAME, seed=seed, manifest_digest=digest))
    client.promote(f"{NAME}:1", "prod")
    return client


def wait_for(what) -> None:
    """Until it is so, or a minute is over."""
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_followed_alias_is_pulled_told_and_left_as_it_is_when_following_ends(
    client: Client, tmp_path: Path
):
    into, told = tmp_path / "followed", tmp_path / "told"
    then = (
        f"{sys.executable} -c \"import os; open('{told}', 'a').write(os.environ['ENGINERY_VERSION'] + ' ')\""
    )
    follow = [
        *(sys.executable, "-m", "pipeline.cli", "--store", str(tmp_path / "store"), "pull"),
        *(f"{NAME}@prod", str(into), "--watch", "0.1", "--then", then),
    ]
    ours = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ours
    ) as child:
        wait_for(lambda: told.exists() and told.read_text().split() == [f"{NAME}:1"])
        client.promote(f"{NAME}:2", "prod")
        wait_for(lambda: told.read_text().split() == [f"{NAME}:1", f"{NAME}:2"])
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert f"pulled {NAME}:2 to {into / '2'}" in out
    assert "stopped following" in err
    assert (into / "current" / "rank0.bin").read_bytes() == b"engine" * 2
    assert (into / "1" / "rank0.bin").read_bytes() == b"engine"  # for a rollback


def test_then_without_watch_is_a_mistake(cli: Cli, client: Client, tmp_path: Path):
    done = cli("--store", tmp_path / "store", "pull", f"{NAME}@prod", tmp_path / "x", "--then", "true")
    assert done.returncode == 2
    assert "add --watch" in done.stderr
    assert not (tmp_path / "x").exists()
