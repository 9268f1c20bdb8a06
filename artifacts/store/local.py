"""The store in a directory: immutable artifacts, written in a staging directory and committed by a rename."""

import errno
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from artifacts.address import parse_address
from artifacts.byte_progress import Progress
from artifacts.digest import FileDigests
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, Manifest
from artifacts.store import disk, tree
from artifacts.store.blobs import Blobs
from artifacts.store.contents import Contents
from artifacts.store.disk import ReportFullDisk, ReportUnwritable
from artifacts.store.draft import Draft, Source
from artifacts.store.scratch import scratch, sweep, sweep_old
from artifacts.store.store_identity import Identity, identify, identity_in

PARTIAL_MAX_AGE_S = 14 * 24 * 3600.0
"""Interrupted builds that were not resumed for this long are removed: their files can be large."""


class LocalStore(Contents):
    """A store in a directory on a local or shared file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.digests = FileDigests(root / "digests.db")
        self.blobs = Blobs(root / "blobs", self.digests)
        self.local: LocalStore = self
        """The local files: the store itself, or the cache of a remote store."""
        self._staging = root / "staging"

    @property
    def id(self) -> str:
        """The store's id; creates one if the store has none yet."""
        self.make_room()
        with ReportFullDisk(self.root, "the store"), ReportUnwritable(self.root):
            return identify(self.root, self._staging).id

    def identity(self) -> Identity | None:
        """Id and layout; None before the first write. StoreUnusable for a newer layout."""
        return identity_in(self.root)

    def source(self) -> Source | None:
        """The source of intact bytes for damaged files; only a cache has one, its remote store."""
        return None

    @property
    def url(self) -> str:
        """Path that opens this store from any directory."""
        return str(self.root)

    @property
    def registry_url(self) -> str:
        """URL of this store's own registry."""
        return f"sqlite:///{self.root / 'registry.db'}"

    def directory(self, key: str, progress: Progress | None = None) -> Path:
        """The artifact's directory with all of its files; NotFound where it was never committed.

        `progress` receives the bytes fetched; a local store fetches none.
        """
        if not self.has(key):
            self.manifest(key)  # raises NotFound with the right message
        return self.path(key)

    def require(self, key: str, label: str, progress: Progress | None = None) -> Path:
        """The directory of an artifact, called `label` in messages, if every file is as committed.

        Reads only files that `stat` says may have changed. ArtifactCorrupt, with the remedy, for a damaged
        artifact; a cache fetches its damaged files again instead.
        """
        directory = self.directory(key, progress)
        if not self.local.intact(key):
            problems = self.local.verify(key)
            raise ArtifactCorrupt(
                "\n".join(
                    [
                        f"{label} is damaged in the store {self.url}; repair it from another store or a"
                        " pulled directory (enginery store repair --all --from STORE|DIRECTORY), or run "
                        "its recipe again",
                        *problems,
                    ]
                )
            )
        return directory

    def file(self, key: str, name: str) -> Path:
        """Path of one file of the artifact; NotFound for an unknown name."""
        self.manifest(key).file(name)
        return self.path(key) / name

    def log(self, key: str) -> Path:
        """Log file of the programs that build the artifact; it is kept after a failed build."""
        path = self.root / "logs" / f"{parse_address(key)[0]}.log"
        with ReportFullDisk(self.root, "a log file"), ReportUnwritable(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def partial(self, key: str) -> Path:
        """Directory for files that an interrupted build resumes from; the build creates it."""
        return self.root / "partial" / parse_address(key)[0]

    def free_bytes(self) -> int:
        """Bytes that can be written to the store's disk."""
        return disk.free_bytes(self.root)

    def prepare(self) -> None:
        """Write to the store to prove that it is writable; otherwise a StoreUnusable."""
        self.make_room()
        with (
            ReportFullDisk(self.root, "the store"),
            ReportUnwritable(self.root),
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

        If another process commits the key first, its artifact stands and this call succeeds; with `beside`,
        a different content is committed beside it. `needed_bytes`, where known, is compared with the free
        space before the block runs. StoreUnusable for a full disk, also inside the block.
        """
        with self._draft(f"{kind} {key[:12]}", key, needed_bytes) as draft:
            yield draft
            with ReportUnwritable(self.root):
                self._commit(draft, draft.described(key, kind=kind, step=step, host=host), beside=beside)

    @contextmanager
    def receive(self, manifest: Manifest, *, needed_bytes: int = 0) -> Iterator[Draft]:
        """Yield a draft for an artifact from another store; commit it if it matches its manifest.

        Files whose contents this store has need not be written. ArtifactCorrupt, without a commit, for any
        other difference. Other contents of its key stay beside it.
        """
        label = f"{manifest.kind} {manifest.key[:12]}"
        with self._draft(label, manifest.key, needed_bytes) as draft:
            yield draft
            with ReportUnwritable(self.root):
                draft.complete(manifest, self.blobs)
                # Contents that are not bit-identical are all worth keeping here: another registry may point
                # at this one.
                self._commit(draft, manifest, beside=True)

    @contextmanager
    def _draft(self, label: str, key: str, needed_bytes: int) -> Iterator[Draft]:
        instead = "choose another store"
        full_disk = ReportFullDisk(self.root, label, needed_bytes=needed_bytes, instead=instead)
        with ExitStack() as stack:
            with full_disk as full, ReportUnwritable(self.root):
                full.require()
                self.path(key).parent.mkdir(parents=True, exist_ok=True)
                draft = Draft(stack.enter_context(scratch(self._staging, key[:12])))
            # From here on, the message about a full disk counts what the block has written.
            full_disk.draft = draft.path
            with full_disk:
                yield draft

    def _commit(self, draft: Draft, manifest: Manifest, *, beside: bool) -> None:
        """Commit the draft, unless its content exists, or, without `beside`, any content of its key."""

        def is_committed() -> bool:
            addresses = self.contents(manifest.key)
            return manifest.address in addresses if beside else bool(addresses)

        if is_committed():  # another process committed it first
            return
        # All files are on disk before the rename: after a crash, a directory with a name is complete.
        draft.seal(manifest, self.blobs)
        identify(self.root, self._staging)
        # A rename onto an existing directory fails, so that exactly one of several writers gets each name.
        for target in (self.slot(manifest.key), self.slot(manifest.address)):
            if self._take_slot(draft, target):
                # The rename itself is durable only after its directory is.
                tree.sync(target.parent)
                self.blobs.add(target, manifest.files, draft.aside, draft.read_ns)
                return
            if is_committed():  # another process won the race after the check above
                return

    def _take_slot(self, draft: Draft, target: Path) -> bool:
        """Rename the draft to `target`; False where another artifact is there."""
        try:
            draft.path.rename(target)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if (target / MANIFEST).is_file():
                return False
            # Moved, not deleted: it may hold what somebody needs to find the cause.
            self._set_aside(target)  # a directory without a manifest is a damaged leftover
            draft.path.rename(target)
        return True

    def push(self, key: str, progress: Progress | None = None) -> None:
        """Send a committed artifact to the remote store; a local store has none."""

    def intact(self, key: str) -> bool:
        """Whether every file is as committed; reads only files that `stat` says may have changed."""
        try:
            files = self.manifest(key).files
        except (NotFound, ArtifactCorrupt):
            return False
        root = self.path(key)
        return not tree.misshapen(root, files) and not tree.differing(root, files, self.digests.digests)

    def verify(self, key: str) -> list[str]:
        """Every problem of the artifact, each with its file; reads every byte."""
        try:
            files = self.manifest(key).files
        except ArtifactCorrupt as exc:
            return [f"{MANIFEST}: {exc}"]
        problems = tree.problems(self.path(key), files)
        if problems:  # cached digests of these files are no longer trustworthy
            self.digests.forget(self.path(key) / name for name in files)
        return problems

    def discard(self, key: str) -> Path:
        """Move a corrupt artifact to the quarantine, so that it is built again; return its new path."""
        return self._set_aside(self.path(key))

    def _set_aside(self, place: Path) -> Path:
        quarantine = self.root / "quarantine"
        self.make_room()
        with ReportFullDisk(self.root, "the quarantine"), ReportUnwritable(self.root):
            quarantine.mkdir(exist_ok=True)
            directory = Path(tempfile.mkdtemp(dir=quarantine, prefix=f"{place.name[:12]}."))
            return place.rename(directory)  # replaces the empty directory

    def remove(self, key: str) -> int:
        """Remove an artifact, and contents that no other artifact has; return the bytes freed.

        Processes that have its files open can go on reading them. The caller decides that it is unused.
        """
        root, since_ns = self.path(key), time.time_ns()
        try:
            digests = {r.sha256 for r in self._manifest_in(root, root.name).files.values() if r.size}
        except ArtifactCorrupt:
            digests = set()  # its contents are unknown; the next gc releases those without a user
        blobs = [blob for blob in map(self.blobs.path, digests) if blob.is_file()]
        digests_of = self.digests.known(blobs)
        self.make_room()
        with ReportUnwritable(self.root), scratch(self._staging, f"{key[:12]}.removed") as directory:
            # One rename ends the artifact for readers; the deletion of its files may then take as long as it
            # likes.
            root.rename(directory / root.name)
            removed = [path.lstat() for path in tree.list_files(directory).values()]
            # Files with further links keep their bytes on the disk; `release` counts those whose last user
            # this was.
            freed = sum(stat.st_size for stat in removed if stat.st_nlink == 1)
        freed += self.blobs.release(digests)
        # Removing hard links changed the ctime of contents that other artifacts use: confirm their digests.
        self.digests.vouch(digests_of, since_ns)
        return freed

    def sweep(self) -> list[Path]:
        """Remove drafts of dead processes and old partial builds; return the removed directories."""
        with ReportUnwritable(self.root):
            return [*sweep(self._staging), *sweep_old(self.root / "partial", PARTIAL_MAX_AGE_S)]
