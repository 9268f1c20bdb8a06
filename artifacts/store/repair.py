"""Right bytes put in the place of damaged ones: from another copy in the store, or from another store."""

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
from artifacts.store.disk import FullDiskSaid, UnwritableSaid
from artifacts.store.draft import Source
from artifacts.store.local import LocalStore, open_store
from artifacts.store.scratch import scratch
from artifacts.store.store_identity import LAYOUT, STORE, Identity
from artifacts.store.survey import FOREIGN, Damage, survey
from recipes.regular import shortened, user_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What became of one damaged file."""

    damage: Damage
    repaired: bool
    how: str
    """Where the right bytes came from, or why there are none."""


def repair(
    store: LocalStore,
    damages: Iterable[Damage],
    source: Source | None = None,
    *,
    bound: str | None = None,
) -> Iterator[Repair]:
    """Repair one damage after the other, all names of the file at once; yields what became of each.

    Bytes are verified before they take a place, and take it at once. `source` defaults to the store's own;
    `bound` is the store's id as its registry has it.
    """
    tools = _Tools(store.local, source or store.source(), bound)
    for damage in damages:
        with FullDiskSaid(store.root, damage.paths[-1]), UnwritableSaid(store.root):
            done = tools.mend(damage)
        yield done
        if done.repaired and damage.paths[0].endswith(f"/{MANIFEST}"):  # now its files can be judged
            yield from repair(store, survey(store, damage.keys).damages, source, bound=bound)


class StoreSource:
    """Another local store as a source."""

    def __init__(self, store: LocalStore) -> None:
        self._store, self._copies = store, _Copies(store)

    def fetch(self, record: FileRecord, target: Path) -> bool:
        """Copy a content that an artifact there has; False where none has it intact."""
        return _fetch(self._copies.of(record.sha256), record, target)

    def manifest(self, key: str) -> Manifest:
        """The manifest there; NotFound where there is none."""
        return self._store.manifest(key)


class PulledSource:
    """A pulled directory as a source."""

    def __init__(self, directory: Path) -> None:
        """Reads its manifest; an ArtifactCorrupt where that was changed."""
        text = (directory / MANIFEST).read_bytes().decode(errors="replace")
        self._directory, self._manifest = directory, read_manifest(text, str(directory / MANIFEST))

    def fetch(self, record: FileRecord, target: Path) -> bool:
        """Copy a file with the content; False where the directory has none that is intact."""
        having = [self._directory / name for name, one in self._manifest.files.items() if one == record]
        return _fetch(having, record, target)

    def manifest(self, key: str) -> Manifest:
        """The manifest it was pulled with; NotFound where that is another artifact's."""
        if key not in (self._manifest.key, self._manifest.address):
            raise NotFound(
                f"{self._directory} is of engine {self._manifest.address}, not {key}; pull that one"
            )
        return self._manifest


def source_at(where: str) -> Source:
    """The source that a pulled directory, or the URL or path of a store, is; a StoreUnknown for neither."""
    pulled = user_path(where)
    if (pulled / MANIFEST).is_file():
        return PulledSource(pulled)
    store = open_store(where)
    if store.remote is None and not any((store.root / one).exists() for one in ("objects", STORE)):
        raise StoreUnknown(f"{shortened(where)}: is no store, and no pulled directory; give one of them")
    return StoreSource(store)


class _Copies:
    """Files of a store by the digest that they should have."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def of(self, sha256: str) -> list[Path]:
        """Files that should have the content, one per inode; not all need have it."""
        found = {path.stat().st_ino: path for path in self._named.get(sha256, ()) if path.is_file()}
        blob = self._store.blobs.path(sha256)
        return [*([blob] if blob.is_file() else []), *found.values()]

    @cached_property
    def _named(self) -> dict[str, list[Path]]:
        """From every manifest that can be read, of artifacts set aside too."""
        root, named = self._store.root, dict[str, list[Path]]()
        for pattern in (f"objects/??/*/{MANIFEST}", f"quarantine/*/{MANIFEST}"):
            for path in sorted(root.glob(pattern)):
                try:
                    files = read_manifest(path.read_bytes().decode(errors="replace"), str(path)).files
                except (ArtifactCorrupt, FileNotFoundError):
                    continue
                for name, record in files.items():
                    named.setdefault(record.sha256, []).append(path.parent / name)
        return named


class _Tools:
    """Repairs of one store."""

    def __init__(self, store: LocalStore, source: Source | None, bound: str | None) -> None:
        self._store, self._source, self._bound = store, source, bound
        self._copies = _Copies(store)

    def mend(self, damage: Damage) -> Repair:
        """Repairs one file under all its names."""
        if damage.paths[0].startswith(f"{tuning_cache.FOLDER}/"):
            return self._learned(damage)
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
        with scratch(self._store.root / "staging", "repair") as aside:
            right = aside / "right"
            for path in self._copies.of(record.sha256):
                if _is(path, record):
                    _second_name(path, right)
                    self._put(right, record, damage)
                    where = path.relative_to(self._store.root).as_posix()
                    return Repair(damage=damage, repaired=True, how=f"from {where}")
            if not record.size:
                right.touch()
                self._put(right, record, damage)
                return Repair(damage=damage, repaired=True, how="it is empty")
            if self._source is None:
                why = "the store has no other copy, and no other store was named"
            elif self._source.fetch(record, right) and _is(right, record):
                self._put(right, record, damage)
                return Repair(damage=damage, repaired=True, how="from the other copy")
            else:
                why = "neither this store nor the other one has another copy"
        return Repair(damage=damage, repaired=False, how=f"{why}; run its recipe again")

    def _put(self, right: Path, record: FileRecord, damage: Damage) -> None:
        """Gives the file all names of the damaged one; where links do not go, each gets a copy."""
        right.chmod(tree.READ_ONLY)
        tree.sync(right)
        for short in damage.paths:
            folder, _, rest = short.partition("/")
            if folder == "objects":
                _, key, name = rest.split("/", 2)
                with self._store.lock(key):
                    if self._still(key, name, record):  # neither removed nor built again
                        self._replace(self._store.root / short, right)
            else:
                self._replace(self._store.root / short, right)
        if record.size and not self._store.blobs.path(record.sha256).exists():
            self._store.blobs.add(right.parent, {right.name: record}, right.with_name("aside"), 0)

    def _still(self, key: str, name: str, record: FileRecord) -> bool:
        try:
            return self._store.manifest(key).files.get(name) == record
        except (NotFound, ArtifactCorrupt):
            return False

    def _replace(self, path: Path, right: Path) -> None:
        aside = right.with_name("aside")
        _second_name(right, aside)
        if path.is_dir() and not path.is_symlink():
            self._quarantined(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(path)
        tree.sync(path.parent)

    def _manifest(self, damage: Damage) -> Repair:
        (key,) = damage.keys
        try:
            found = self._source.manifest(key) if self._source is not None else None
        except (NotFound, ArtifactCorrupt):
            found = None
        if found is None or found.key != key_of(key):
            return Repair(damage=damage, repaired=False, how="there is no other copy; run the recipe again")
        self._write(found.to_text(), self._store.slot(key) / MANIFEST)
        return Repair(damage=damage, repaired=True, how="from the other copy")

    def _identity(self, damage: Damage) -> Repair:
        if self._bound is None:
            why = f"no registry knows the id; remove {self._store.root / STORE}, and the store gets another"
            return Repair(damage=damage, repaired=False, how=why)
        self._write(Identity(layout=LAYOUT, id=self._bound).to_text(), self._store.root / STORE)
        return Repair(damage=damage, repaired=True, how="the registry knows the id")

    def _write(self, text: str, target: Path) -> None:
        with scratch(self._store.root / "staging", "repair") as aside:
            (aside / "text").write_text(text)
            (aside / "text").chmod(tree.READ_ONLY)
            tree.sync(aside / "text")
            (aside / "text").replace(target)

    def _set_aside(self, damage: Damage) -> str:
        return self._quarantined(self._store.root / damage.paths[0]).relative_to(self._store.root).as_posix()

    def _quarantined(self, path: Path) -> Path:
        quarantine = self._store.root / "quarantine"
        quarantine.mkdir(exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=quarantine, prefix=f"{path.parent.name[:12]}."))
        return path.rename(aside / path.name)


def _fetch(having: Iterable[Path], record: FileRecord, target: Path) -> bool:
    right = next((path for path in having if _is(path, record)), None)
    if right is not None:
        shutil.copyfile(right, target)
    return right is not None


def _is(path: Path, record: FileRecord) -> bool:
    try:
        return path.stat().st_size == record.size and digest.of_file(path) == record.sha256
    except OSError:  # removed meanwhile, or an unreadable sector
        return False


def _second_name(path: Path, target: Path) -> None:
    """Links where links go, copies elsewhere."""
    try:
        target.hardlink_to(path)
    except OSError as exc:
        if exc.errno not in UNSHARED:
            raise
        shutil.copyfile(path, target)
        target.chmod(tree.READ_ONLY)
        tree.sync(target)
