"""Repairs damaged files of a local store from other copies in the store or from a source."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from artifacts import digest
from artifacts.address import key_of
from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnknown
from artifacts.manifest import MANIFEST, FileRecord, Manifest, read_manifest
from artifacts.store import tree, tuning_cache
from artifacts.store.blobs import UNSHARED
from artifacts.store.disk import ReportFullDisk, ReportUnwritable
from artifacts.store.draft import Source
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.scratch import scratch
from artifacts.store.store_identity import LAYOUT, STORE, Identity
from artifacts.store.survey import FOREIGN, Damage, survey
from recipes.regular import shortened, user_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The outcome for one damaged file."""

    damage: Damage
    repaired: bool
    how: str
    """Where the intact bytes came from, or why there are none."""


def repair(
    store: LocalStore,
    damages: Iterable[Damage],
    source: Source | None = None,
    *,
    registered_id: str | None = None,
) -> Iterator[Repair]:
    """Repair the damages one by one, each file under all of its names; yield the outcomes.

    Bytes are verified before they replace a file atomically. `source` defaults to the store's own;
    `registered_id` is the store's id in its registry.
    """
    # One object for all damages: it reads the manifests once to find copies.
    tools = _Tools(store.local, source or store.source(), registered_id)
    for damage in damages:
        with ReportFullDisk(store.root, damage.paths[-1]), ReportUnwritable(store.root):
            outcome = tools.mend(damage)
        yield outcome
        if outcome.repaired and damage.paths[0].endswith(f"/{MANIFEST}"):  # now its files can be judged
            yield from repair(store, survey(store, damage.keys).damages, source, registered_id=registered_id)


class StoreSource:
    """A local store as the source of a repair."""

    def __init__(self, store: LocalStore) -> None:
        self._store, self._copies = store, _Copies(store)

    def fetch(self, record: FileRecord, target: Path) -> bool:
        """Copy a content; False where the store has no intact copy."""
        return _copy_intact(self._copies.of(record.sha256), record, target)

    def manifest(self, key: str) -> Manifest:
        """The store's manifest; NotFound where there is none."""
        return self._store.manifest(key)


class PulledSource:
    """A pulled directory as the source of a repair."""

    def __init__(self, directory: Path) -> None:
        """Reads its manifest; ArtifactCorrupt where the manifest was changed."""
        text = (directory / MANIFEST).read_bytes().decode(errors="replace")
        self._directory, self._manifest = directory, read_manifest(text, str(directory / MANIFEST))

    def fetch(self, record: FileRecord, target: Path) -> bool:
        """Copy a file with the content; False where the directory has no intact one."""
        candidates = [
            self._directory / name for name, listed in self._manifest.files.items() if listed == record
        ]
        return _copy_intact(candidates, record, target)

    def manifest(self, key: str) -> Manifest:
        """The directory's manifest; NotFound where it is of another artifact."""
        if key not in (self._manifest.key, self._manifest.address):
            raise NotFound(
                f"{self._directory} is of engine {self._manifest.address}, not {key}; pull that one"
            )
        return self._manifest


def source_at(location: str) -> Source:
    """The source at a pulled directory or at the URL or path of a store; StoreUnknown for anything else."""
    directory = user_path(location)
    if (directory / MANIFEST).is_file():
        return PulledSource(directory)
    store = open_store(location)
    if store.remote is None and not any((store.root / name).exists() for name in ("objects", STORE)):
        raise StoreUnknown(
            f"{shortened(location)}: is neither a store nor a pulled directory; give one of them"
        )
    return StoreSource(store)


class _Copies:
    """Finds files of a store by the digest that they should have."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def of(self, sha256: str) -> list[Path]:
        """Files that should have the content, one per inode; some may be damaged."""
        # Names of one inode have the same bytes, so that one of them is enough.
        path_of = {path.stat().st_ino: path for path in self._named.get(sha256, ()) if path.is_file()}
        blob = self._store.blobs.path(sha256)
        return [*([blob] if blob.is_file() else []), *path_of.values()]

    @cached_property
    def _named(self) -> dict[str, list[Path]]:
        """Digest -> files, from every readable manifest, including those in the quarantine."""
        root, paths_of = self._store.root, dict[str, list[Path]]()
        # A discarded artifact is still a source: its other files may be intact.
        for pattern in (f"objects/??/*/{MANIFEST}", f"quarantine/*/{MANIFEST}"):
            for path in sorted(root.glob(pattern)):
                try:
                    files = read_manifest(path.read_bytes().decode(errors="replace"), str(path)).files
                except (ArtifactCorrupt, FileNotFoundError):
                    continue
                for name, record in files.items():
                    paths_of.setdefault(record.sha256, []).append(path.parent / name)
        return paths_of


class _Tools:
    """Repairs of one store."""

    def __init__(self, store: LocalStore, source: Source | None, registered_id: str | None) -> None:
        self._store, self._source, self._bound = store, source, registered_id
        self._copies = _Copies(store)

    def mend(self, damage: Damage) -> Repair:
        """Repair one file under all of its names."""
        if damage.paths[0].startswith(f"{tuning_cache.FOLDER}/"):
            return self._learned(damage)
        # Set aside rather than removed: enginery did not write it, so somebody may need it.
        if damage.what == FOREIGN:
            return Repair(damage=damage, repaired=True, how=f"set aside as {self._set_aside(damage)}")
        if damage.paths == (STORE,):
            return self._identity(damage)
        if damage.paths[0].endswith(f"/{MANIFEST}"):
            return self._manifest(damage)
        return self._unlisted(damage) if damage.record is None else self._content(damage, damage.record)

    def _unlisted(self, damage: Damage) -> Repair:
        (self._store.root / damage.paths[0]).unlink(missing_ok=True)
        return Repair(damage=damage, repaired=True, how="removed: no manifest lists it")

    def _learned(self, damage: Damage) -> Repair:
        folder, settings, *_ = damage.paths[0].split("/")
        tuning_cache.mend(self._store.root / folder / settings, self._store.root / "staging")
        return Repair(damage=damage, repaired=True, how="removed: the next build learns it again")

    def _content(self, damage: Damage, record: FileRecord) -> Repair:
        with scratch(self._store.root / "staging", "repair") as directory:
            restored = directory / "right"
            for path in self._copies.of(record.sha256):
                if _has_content(path, record):
                    _link_or_copy(path, restored)
                    self._put(restored, record, damage)
                    origin = path.relative_to(self._store.root).as_posix()
                    return Repair(damage=damage, repaired=True, how=f"from {origin}")
            if not record.size:
                restored.touch()
                self._put(restored, record, damage)
                return Repair(damage=damage, repaired=True, how="it is empty")
            if self._source is None:
                reason = "the store has no other copy, and no source was named"
            # Hashed here too: a source promises its bytes, but only verified ones may replace a file.
            elif self._source.fetch(record, restored) and _has_content(restored, record):
                self._put(restored, record, damage)
                return Repair(damage=damage, repaired=True, how="from the other copy")
            else:
                reason = "neither this store nor the other one has another copy"
        return Repair(damage=damage, repaired=False, how=f"{reason}; run its recipe again")

    def _put(self, restored: Path, record: FileRecord, damage: Damage) -> None:
        """Replace the damaged file under all of its names, by hard links or else by copies."""
        restored.chmod(tree.READ_ONLY)
        # On disk before the rename: a crash must not leave a name for bytes that were never written.
        tree.sync(restored)
        for place in damage.paths:
            folder, _, rest = place.partition("/")
            if folder == "objects":
                _, key, name = rest.split("/", 2)
                with self._store.lock(key):
                    if self._is_listed(key, name, record):  # neither removed nor built again meanwhile
                        self._replace(self._store.root / place, restored)
            else:
                self._replace(self._store.root / place, restored)
        if record.size and not self._store.blobs.path(record.sha256).exists():
            self._store.blobs.add(restored.parent, {restored.name: record}, restored.with_name("aside"), 0)

    def _is_listed(self, key: str, name: str, record: FileRecord) -> bool:
        try:
            return self._store.manifest(key).files.get(name) == record
        except (NotFound, ArtifactCorrupt):
            return False

    def _replace(self, path: Path, restored: Path) -> None:
        temporary = restored.with_name("aside")
        _link_or_copy(restored, temporary)
        # A file cannot replace a directory.
        if path.is_dir() and not path.is_symlink():
            self._quarantined(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)
        tree.sync(path.parent)

    def _manifest(self, damage: Damage) -> Repair:
        (key,) = damage.keys
        try:
            manifest = self._source.manifest(key) if self._source is not None else None
        except (NotFound, ArtifactCorrupt):
            manifest = None
        # A pulled directory may be of another artifact.
        if manifest is None or manifest.key != key_of(key):
            return Repair(damage=damage, repaired=False, how="there is no other copy; run the recipe again")
        self._write(manifest.to_text(), self._store.slot(key) / MANIFEST)
        return Repair(damage=damage, repaired=True, how="from the other copy")

    def _identity(self, damage: Damage) -> Repair:
        if self._bound is None:
            reason = (
                f"no registry knows the id; remove {self._store.root / STORE}, and the store gets another"
            )
            return Repair(damage=damage, repaired=False, how=reason)
        self._write(Identity(layout=LAYOUT, id=self._bound).to_text(), self._store.root / STORE)
        return Repair(damage=damage, repaired=True, how="the registry knows the id")

    def _write(self, text: str, target: Path) -> None:
        with scratch(self._store.root / "staging", "repair") as directory:
            (directory / "text").write_text(text)
            (directory / "text").chmod(tree.READ_ONLY)
            tree.sync(directory / "text")
            (directory / "text").replace(target)

    def _set_aside(self, damage: Damage) -> str:
        return self._quarantined(self._store.root / damage.paths[0]).relative_to(self._store.root).as_posix()

    def _quarantined(self, path: Path) -> Path:
        quarantine = self._store.root / "quarantine"
        quarantine.mkdir(exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=quarantine, prefix=f"{path.parent.name[:12]}."))
        return path.rename(directory / path.name)


def _copy_intact(candidates: Iterable[Path], record: FileRecord, target: Path) -> bool:
    intact = next((path for path in candidates if _has_content(path, record)), None)
    if intact is not None:
        shutil.copyfile(intact, target)
    return intact is not None


def _has_content(path: Path, record: FileRecord) -> bool:
    try:
        return path.stat().st_size == record.size and digest.of_file(path) == record.sha256
    except OSError:  # removed meanwhile, or on an unreadable sector
        return False


def _link_or_copy(path: Path, target: Path) -> None:
    """Hard-link a file; copy it where links are not possible."""
    try:
        target.hardlink_to(path)
    except OSError as exc:
        # Any other error, such as a full disk, would fail the copy too.
        if exc.errno not in UNSHARED:
            raise
        shutil.copyfile(path, target)
        target.chmod(tree.READ_ONLY)
        tree.sync(target)
