"""What the tests of caches share: commits, and damage to files that nobody may write."""

from pathlib import Path

from artifacts.store.local import LocalStore
from tests.artifacts.remotes import FILES, damage


def commit(store: LocalStore, key: str, files: dict[str, bytes] = FILES) -> None:
    with store.write(key, kind="engine", step={"kind": "engine"}, host={}) as draft:
        for name, data in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.path / name).write_bytes(data)


def hurt(path: Path) -> None:
    path.chmod(0o644)
    damage(path)
