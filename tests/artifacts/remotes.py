"""What the tests of remote stores share: small parts, little patience, files, and how to damage them."""

import random
import time
from pathlib import Path

from artifacts.store.remote import remote_place
from artifacts.store.remote.remote_place import Patience
from artifacts.store.remote.remote_store import RemoteStore

PART = 4096
FAST = Patience(stall_s=0.4, request_s=1.5, outage_s=8, retries=6, backoff_s=0.01)
FILES = {
    "engine.json": b"{}",
    "rank0.bin": random.Random(1).randbytes(5 * PART + 7),
    "tuning/cache": b"c" * PART,
    "empty": b"",
}
BIG = {"rank0.bin": random.Random(2).randbytes(150 * PART), "rank1.bin": random.Random(3).randbytes(9)}


def opened(url: str) -> RemoteStore:
    return RemoteStore(remote_place.parse(url), FAST, part_bytes=PART)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def until(count: int, seen) -> None:
    deadline = time.monotonic() + 30
    while len(seen()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)
