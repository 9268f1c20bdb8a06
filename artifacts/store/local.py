"""Bytes by key: immutable directories, written aside and committed once."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from artifacts.address import parse_address
from artifacts.digest import FileDigests
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, Manifest
from artifacts.store import disk, tree
from artifacts.store.blobs import Blobs
from artifacts.store.contents import Contents
from artifacts.store.disk import FullDiskSaid, UnwritableSaid
from artifacts.store.draft import Draft, Progress, Source
from artifacts.store.scratch import scratch, sweep, sweep_old
from artifacts.store.store_identity import Identity, identify, identity_in

PARTIAL_MAX_AGE_S = 14 * 24 * 3600.0
"""Interrupted builds that nobody continued for this long are removed; their files can be large."""


class LocalStore(Contents):
    """A store in a directory of this machine, or of a file system shared with others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.digests = FileDigests(root / "digests.db")
        self.blobs = Blobs(root / "blobs", self.digests)
        self.local: LocalStore = self
        """The files on this machine: of a store that caches another, the cache alone."""
        self._staging = root / "staging"

    @property
    def id(self) -> str:
        """The id that this store's files carry along; one that has none yet gets it."""
        self.make_room()
        with FullDiskSaid(self.root, "the store"), UnwritableSaid(self.root):
            return identify(self.root, self._staging).id

    def identity(self) -> Identity | None:
        """Id and layout, None before the first write; a newer layout is a StoreUnusable."""
        return identity_in(self.root)

    def source(self) -> Source | None:
        """Where right bytes can be had when this store's are damaged; a store that caches another has one."""
        return None

    @property
    def url(self) -> str:
        """What opens this store from any directory."""
        return str(self.root)

    @property
    def registry_url(self) -> str:
        """Where this store's registry is when nobody says otherwise."""
        return f"sqlite:///{self.root / 'registry.db'}"

    def directory(self, key: str, progress: Progress | None = None) -> Path:
        """The artifact's directory, all of its files in it; NotFound where it was never committed.

        `progress` is told of bytes that had to be fetched; here there are none.
        """
        if not self.has(key):
            self.manifest(key)  # says what is missing
        return self.path(key)

    def require(self, key: str, what: str, progress: Progress | None = None) -> Path:
        """The directory of an artifact that `what` names to people, if every file is what was committed.

        Reads only files that `stat` says may have changed. What is damaged is an ArtifactCorrupt, which says
        how it is repaired; a store that caches another fetches it again instead.
        """
        directory = self.directory(key, progress)
        if not self.local.intact(key):
            problems = self.local.verify(key)
            raise ArtifactCorrupt(
                "\n".join(
                    [
                        f"{what} is damaged in the store {self.url}; repair it from a store or pull that"
                        " has it (enginery store repair --all --from STORE|DIRECTORY), or run its recipe"
                        " again",
                        *problems,
                    ]
                )
            )
        return directory

    def file(self, key: str, name: str) -> Path:
        """One file of the artifact, without asking for the others; NotFound where it has none of the name."""
        self.manifest(key).file(name)
        return self.path(key) / name

    def log(self, key: str) -> Path:
        """File for the output of the programs that make the artifact; it survives a failed build."""
        path = self.root / "logs" / f"{parse_address(key)[0]}.log"
        with FullDiskSaid(self.root, "a log file"), UnwritableSaid(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def partial(self, key: str) -> Path:
        """Directory for what an interrupted build wants to find again; whoever builds makes it."""
        return self.root / "partial" / parse_address(key)[0]

    def free_bytes(self) -> int:
        """Bytes that can still be written."""
        return disk.free_bytes(self.root)

    def prepare(self) -> None:
        """Prove that the store can be written, by writing; otherwise a StoreUnusable."""
        self.make_room()
        with (
            FullDiskSaid(self.root, "the store"),
            UnwritableSaid(self.root),
            scratch(self._staging, "probe") as probe,
        ):
            (probe / "byte").write_bytes(b"1")

    @contextmanager
    def write(
        self,
        key: str,
        *,
        kind: str,
        step: Mapping[str, Any],
        host: Mapping[str, Any],
        needed_bytes: int = 0,
        beside: bool = False,
    ) -> Iterator[Draft]:
        """Yield a draft; commit it under `key` if the block succeeds, else discard it.

        Losing a race to an identical key is success; with `beside`, other contents of the key are kept beside
        this one. `needed_bytes`, where the caller can tell, is compared with the free space before the block
        runs. A full disk, also inside the block, is a StoreUnusable.
        """
        with self._draft(f"{kind} {key[:12]}", key, needed_bytes) as draft:
            yield draft
            with UnwritableSaid(self.root):
                self._commit(draft, draft.described(key, kind=kind, step=step, host=host), beside=beside)

    @contextmanager
    def receive(self, manifest: Manifest, *, needed_bytes: int = 0) -> Iterator[Draft]:
        """Yield a draft for an artifact made elsewhere; commit it if it then is what its manifest says.

        Files whose contents this store has need not be written. Any other difference is an ArtifactCorrupt,
        and nothing is committed. Other contents of its key stay beside it.
        """
        what = f"{manifest.kind} {manifest.key[:12]}"
        with self._draft(what, manifest.key, needed_bytes) as draft:
            yield draft
            with UnwritableSaid(self.root):
                draft.complete(manifest, self.blobs)
                self._commit(draft, manifest, beside=True)

    @contextmanager
    def _draft(self, what: str, key: str, needed_bytes: int) -> Iterator[Draft]:
        instead = "choose another store"
        said = FullDiskSaid(self.root, what, needed_bytes=needed_bytes, instead=instead)
        with ExitStack() as stack:
            with said as full, UnwritableSaid(self.root):
                full.require()
                self.path(key).parent.mkdir(parents=True, exist_ok=True)
                draft = Draft(stack.enter_context(scratch(self._staging, key[:12])))
            said.draft = draft.path
            with said:
                yield draft

    def _commit(self, draft: Draft, manifest: Manifest, *, beside: bool) -> None:
        """Makes the draft a content of its key, unless that is there, or any is and that will do."""

        def found() -> bool:
            held = self.contents(manifest.key)
            return manifest.address in held if beside else bool(held)

        if found():  # somebody committed it first
            return
        draft.seal(manifest, self.blobs)
        identify(self.root, self._staging)
        for target in (self.slot(manifest.key), self.slot(manifest.address)):
            if self._taken(draft, target):
                tree.sync(target.parent)
                self.blobs.add(target, manifest.files, draft.aside, draft.read_ns)
                return
            if found():  # lost the race at the last moment
                return

    def _taken(self, draft: Draft, target: Path) -> bool:
        """Whether the draft could take the place; another content that is there keeps it."""
        try:
            draft.path.rename(target)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if (target / MANIFEST).is_file():
                return False
            self._set_aside(target)  # a wreck without a manifest is nobody's artifact
            draft.path.rename(target)
        return True

    def push(self, key: str, progress: Progress | None = None) -> None:
        """See that a committed artifact is where others find it: nothing to do where this is the place."""

    def intact(self, key: str) -> bool:
        """Whether every file is what was committed; reads only files that `stat` says may have changed."""
        try:
            files = self.manifest(key).files
        except (NotFound, ArtifactCorrupt):
            return False
        root = self.path(key)
        return not tree.misshapen(root, files) and not tree.differing(root, files, self.digests.digests)

    def verify(self, key: str) -> list[str]:
        """Everything wrong with the artifact, by reading all of it; each names its file."""
        try:
            files = self.manifest(key).files
        except ArtifactCorrupt as exc:
            return [f"{MANIFEST}: {exc}"]
        found = tree.problems(self.path(key), files)
        if found:  # nothing may vouch for them any longer
            self.digests.forget(self.path(key) / name for name in files)
        return found

    def discard(self, key: str) -> Path:
        """Move a corrupt artifact aside, so that it is built again; return where it is now."""
        return self._set_aside(self.path(key))

    def _set_aside(self, place: Path) -> Path:
        quarantine = self.root / "quarantine"
        self.make_room()
        with FullDiskSaid(self.root, "the quarantine"), UnwritableSaid(self.root):
            quarantine.mkdir(exist_ok=True)
            aside = Path(tempfile.mkdtemp(dir=quarantine, prefix=f"{place.name[:12]}."))
            return place.rename(aside)  # replaces the empty directory

    def remove(self, key: str) -> int:
        """Remove an artifact, and contents that no other has; return bytes freed.

        Whoever reads it meanwhile keeps the files that are open. Nothing here asks whether it is needed.
        """
        root, before = self.path(key), time.time_ns()
        try:
            digests = {r.sha256 for r in self._manifest_in(root, root.name).files.values() if r.size}
        except ArtifactCorrupt:
            digests = set()  # what it shared is found by releasing all contents
        blobs = [blob for blob in map(self.blobs.path, digests) if blob.is_file()]
        known = self.digests.known(blobs)
        self.make_room()
        with UnwritableSaid(self.root), scratch(self._staging, f"{key[:12]}.removed") as aside:
            root.rename(aside / root.name)
            alone = [path.lstat() for path in tree.list_files(aside).values()]
            freed = sum(found.st_size for found in alone if found.st_nlink == 1)
        freed += self.blobs.release(digests)
        self.digests.vouch(known, before)  # a name less moved the ctime of what others still use
        return freed

    def sweep(self) -> list[Path]:
        """Remove drafts whose writer died, and old partial builds; return what was removed."""
        with UnwritableSaid(self.root):
            return [*sweep(self._staging), *sweep_old(self.root / "partial", PARTIAL_MAX_AGE_S)]


def open_store(url_or_path: str | Path) -> LocalStore:
    """The store at a URL or a local path, a remote one behind a cache; it is made when first written to."""
    from artifacts.store.opening import opened  # it needs this module

    return opened(str(url_or_path), os.environ)
