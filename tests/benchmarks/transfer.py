"""Moving an artifact to an S3 server and back: throughput against `cp`, and the memory that it takes.

python -m tests.benchmarks.transfer [GIGABYTES]
"""

import os
import re
import shutil
import subprocess  # noqa: TID251 each move runs in a process of its own, whose memory is measured
import sys
import tempfile
import time
from pathlib import Path

from artifacts import digest
from artifacts.client import Client
from artifacts.registry.registry import Publication, open_registry
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from tests.present import present
from tests.servers import s3

GIGABYTES = 10.0
FILES = 4
BLOCK = 1 << 26
KEY = digest.of_json("transfer")
URL = "s3://bench/engines"
NAME = "bench/engine"
LIMIT_MB = 300


def main(gigabytes: float = GIGABYTES) -> None:
    """Prints the table; fails where a move takes more than 300 MB."""
    with tempfile.TemporaryDirectory(prefix="transfer-") as made:
        root = Path(made)
        (root / "s3").mkdir()
        with s3.serving(root / "s3") as server:
            server.bucket("bench")
            env = {**os.environ, **s3.environment(server.address), "ENGINERY_CACHE": str(root / "cache")}
            rows = measured(root, env, gigabytes)
    print_rows(rows)
    worst = max(float(row["peak RSS (MB)"]) for row in rows if row["peak RSS (MB)"] != "")
    assert worst < LIMIT_MB, f"{worst} MB"


def measured(root: Path, env: dict[str, str], gigabytes: float) -> list[dict[str, str]]:
    """One row per move; what is not needed any more is removed, so that twice the size is on the disk."""
    store = LocalStore(root / "store")
    size = write(store, gigabytes)
    began = time.monotonic()
    copy = ["cp", "-r", str(store.path(KEY)), str(root / "copy")]
    subprocess.run(copy, check=True)
    subprocess.run(["sync", "-f", str(root / "copy")], check=True)
    cp_s = time.monotonic() - began
    shutil.rmtree(root / "copy")
    rows = [row("cp, sync", size, cp_s, cp_s, None)]
    for what, argument, done_with in (("push", store.root, store.root), ("pull", root / "engine", None)):
        argv = [
            sys.executable,
            "-m",
            "tests.benchmarks.transfer",
            what,
            str(argument),
            str(root / "registry.db"),
        ]
        done = subprocess.run(argv, check=True, env=env, stdout=subprocess.PIPE, text=True)
        seconds, peak_mb = map(float, done.stdout.split())
        rows.append(row(what, size, seconds, cp_s, peak_mb))
        if done_with is not None:
            shutil.rmtree(done_with)
    return rows


def write(store: LocalStore, gigabytes: float) -> int:
    """Commits files of bytes that do not repeat; returns their size."""
    block = bytearray(os.urandom(BLOCK))
    blocks = max(1, round(gigabytes * 1e9 / FILES / BLOCK))
    with store.write(KEY, kind="engine", step={}, host={}) as draft:
        for number in range(FILES):
            with (draft.path / f"rank{number}.bin").open("wb") as file:
                for index in range(blocks):
                    for part in range(0, BLOCK, 1 << 20):
                        block[part : part + 8] = (number << 32 | index).to_bytes(8, "little")
                    file.write(block)
    return store.manifest(KEY).size_bytes


def row(what: str, size: int, seconds: float, cp_s: float, peak_mb: float | None) -> dict[str, str]:
    """A row of the table."""
    return {
        "move": what,
        "GB": f"{size / 1e9:.1f}",
        "s": f"{seconds:.1f}",
        "MB/s": f"{size / seconds / 1e6:.0f}",
        "time against cp": f"{seconds / cp_s:.2f}",
        "peak RSS (MB)": "" if peak_mb is None else f"{peak_mb:.0f}",
    }


def print_rows(rows: list[dict[str, str]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "|".join(" ---: " for _ in rows[0]) + "|")
    for one in rows:
        print("| " + " | ".join(one.values()) + " |", flush=True)


def push(store: str, registry: str) -> None:
    """Sends the artifact from a local store, and publishes it."""
    local, cached = LocalStore(Path(store)), open_store(URL)
    manifest = local.manifest(KEY)
    present(cached.remote).push(local.path(KEY), manifest)
    publication = Publication(name=NAME, engine_key=KEY, recipe={}, verdict="PASS", facts={})
    open_registry(f"sqlite:///{registry}").publish(publication)


def pull(target: str, registry: str) -> None:
    """Fetches it into a directory."""
    Client(URL, f"sqlite:///{registry}").pull(NAME, target)


def peak_mb() -> float:
    """High-water mark of this process's memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) / 1000


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("push", "pull"):
        start = time.monotonic()
        {"push": push, "pull": pull}[sys.argv[1]](*sys.argv[2:])
        print(time.monotonic() - start, peak_mb())
    else:
        main(*map(float, sys.argv[1:2]))
