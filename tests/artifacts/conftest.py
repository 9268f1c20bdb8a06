"""What the tests of stores share: keys, processes that can be killed, and disks that are really full."""

import subprocess  # noqa: TID251 tests start programs as a shell would
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artifacts import digest
from artifacts.manifest import Manifest
from artifacts.registry.database import connect
from artifacts.registry.registry import Registry, open_registry
from artifacts.store.cached import CachedStore
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.remote.remote_store import RemoteStore
from tests.artifacts.governing import version
from tests.artifacts.remotes import FILES, opened
from tests.disks import mounted
from tests.forked import Forked
from tests.servers.s3 import Bucket

KEY = digest.of_json("one")
OTHER = digest.of_json("another")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(tmp_path / "store")


@pytest.fixture
def registry_url(database_url: str) -> str:
    """URL of an empty registry, once on each kind of database."""
    connect(database_url).create()
    return database_url


@pytest.fixture
def key() -> str:
    return KEY


@pytest.fixture
def other_key() -> str:
    return OTHER


@pytest.fixture
def put(store: LocalStore) -> Callable[..., None]:
    """Commits files under a key."""

    def commit(key: str, files: dict[str, bytes], *, into: LocalStore = store) -> None:
        with into.write(key, kind="engine", step={"kind": "engine"}, host={"cpu": "avx2"}) as draft:
            for name, content in files.items():
                path = draft.path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    return commit


@pytest.fixture
def start() -> Iterator[Callable[..., Forked]]:
    """Starts Python code in a process of its own; whatever still runs at the end of the test is killed."""
    running: list[Forked] = []

    def begin(code: str, *args: object) -> Forked:
        running.append(Forked(code, *args))
        return running[-1]

    yield begin
    for child in running:
        child.kill()
        child.communicate()


@pytest.fixture
def together(start: Callable[..., Forked]) -> Callable[..., list[str]]:
    """Runs code in several processes that begin their work at one moment; returns what each printed.

    The code gets its number as the last argument and calls `input()` when it is ready.
    """

    def run(code: str, count: int, *args: object) -> list[str]:
        children = [start("print('ready', flush=True)\n" + code, *args, number) for number in range(count)]
        for child in children:
            assert child.stdout.readline() == "ready\n", child.stderr.read()
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        outputs = [child.communicate(timeout=60) for child in children]
        for child, (_, err) in zip(children, outputs, strict=True):
            assert child.returncode == 0, err
        return [out.strip() for out, _ in outputs]

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 1 MiB in all."""
    with mounted(tmp_path / "disk", "1m") as where:
        yield where


@pytest.fixture
def read_only_disk(small_disk: Path) -> Callable[[], None]:
    """Makes the small disk read-only from now on."""

    def remount() -> None:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    return remount


@pytest.fixture
def all_files() -> Callable[[Path], list[str]]:
    """Lists every file below a directory but those of a store's reserve."""

    def listed(root: Path) -> list[str]:
        found = (path for path in root.rglob("*") if path.is_file() and path.parent.name != "reserve")
        return sorted(path.relative_to(root).as_posix() for path in found)

    return listed


@pytest.fixture
def remote(bucket: Bucket) -> RemoteStore:
    """A store that nobody wrote to yet."""
    return opened(bucket.url)


@pytest.fixture
def made(store: LocalStore, put: Callable[..., None], key: str) -> Manifest:
    """A local artifact: its manifest."""
    put(key, FILES)
    return store.manifest(key)


@pytest.fixture
def pushed(remote: RemoteStore, store: LocalStore, made: Manifest) -> Manifest:
    """The same in the remote store."""
    assert remote.push(store.path(made.key), made)
    return made


@pytest.fixture
def registry(registry_url: str) -> Registry:
    """Three versions of one name, and no alias."""
    opened = open_registry(registry_url, verified=lambda bundle, digest, key: bundle == f"{digest} {key}")
    for n in (1, 2, 3):
        opened.publish(version(n))
    return opened


@pytest.fixture
def machine(bucket: Bucket, tmp_path: Path) -> Callable[..., CachedStore]:
    """Makes machines that share one remote store, each with a cache of its own."""

    def make(name: str, **options) -> CachedStore:
        return CachedStore(opened(bucket.url), tmp_path / name, **options)

    return make
