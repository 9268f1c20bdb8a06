"""A store in object storage: what is committed there, and what moves to and from it."""

import logging
import secrets
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore

from artifacts.address import address, is_address, parse_address
from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnusable
from artifacts.manifest import FileRecord, Manifest, read_manifest
from artifacts.store import lease
from artifacts.store.contents import absent
from artifacts.store.draft import Progress
from artifacts.store.remote import remote_download, remote_layout, remote_upload
from artifacts.store.remote.remote_objects import Objects
from artifacts.store.remote.remote_place import Patience, Place
from artifacts.store.store_identity import Identity

log = logging.getLogger(__name__)


class RemoteStore:
    """Artifacts below one prefix of an object store; a manifest that is there is the commit."""

    def __init__(
        self, place: Place, patience: Patience | None = None, *, part_bytes: int = remote_layout.PART_BYTES
    ) -> None:
        """`part_bytes` counts only where the store is not made yet."""
        self.url = place.url
        self._objects = Objects(place, patience or Patience())
        self._part_bytes = part_bytes

    @property
    def objects(self) -> ObjectStore:
        """The store of objects itself; paths are relative to the store's prefix."""
        return self._objects.handle

    @cached_property
    def record(self) -> remote_layout.StoreRecord:
        """What the store says of itself, which is written where it says nothing yet."""
        if (found := self._record()) is None:
            made = remote_layout.StoreRecord(layout=1, id=secrets.token_hex(32), part_bytes=self._part_bytes)
            self._objects.create(remote_layout.STORE, made.to_text().encode())
            found = self._record()  # somebody else's, where both wrote
        if found is None:
            raise StoreUnusable(f"{self.url}: {remote_layout.STORE} was written and is not there; run again")
        return found

    def _record(self) -> remote_layout.StoreRecord | None:
        text = self._objects.read(remote_layout.STORE)
        if text is None:
            return None
        return remote_layout.read_store(text.decode(errors="replace"), f"{self.url}/{remote_layout.STORE}")

    @property
    def id(self) -> str:
        """Random, so that the store is recognised under any URL."""
        return self.record.id

    def identity(self) -> Identity | None:
        """Id and layout, None before the first write."""
        found = self._record()
        return None if found is None else Identity(found.layout, found.id)

    def has(self, key: str) -> bool:
        """Whether the artifact was committed; of an address that very content."""
        base, content = parse_address(key)
        if content is not None:
            return self._holding(base, content) is not None
        return self._objects.size(remote_layout.manifest_path(base)) is not None or bool(self._further(base))

    def keys(self) -> list[str]:
        """Everything committed, sorted: the key of each first content, the address of each further one."""
        names = map(remote_layout.name_of, self._objects.listing(remote_layout.MANIFESTS))
        return sorted(name for name in names if is_address(name))

    def contents(self, key: str) -> list[str]:
        """Addresses of every content of a key that can be read, the first one first."""
        found = []
        for name in (key, *self._further(key)):
            with suppress(ArtifactCorrupt, NotFound):
                found.append(self._manifest_at(name).address)
        return list(dict.fromkeys(found))

    def manifest(self, key: str) -> Manifest:
        """The artifact's manifest; NotFound where there is none, ArtifactCorrupt where it was changed."""
        base, content = parse_address(key)
        if content is not None:
            name = self._holding(base, content)
            if name is None:
                raise NotFound(absent(key, self.url, self.contents(base)))
            return self._manifest_at(name)
        try:
            return self._manifest_at(base)
        except NotFound:
            further = self._further(base)
            if not further:
                raise
        return self._manifest_at(further[0])

    def named(self, key: str) -> str:
        """The name of the manifest of an artifact, or what it would have."""
        base, content = parse_address(key)
        return key if content is None else self._holding(base, content) or key

    def _holding(self, key: str, content: str) -> str | None:
        """Under which name the content is; a first one whose manifest is damaged may be it."""
        exact = address(key, content)
        try:
            if self._manifest_at(key).digest == content:
                return key
        except NotFound:
            pass
        except ArtifactCorrupt:
            return exact if self._objects.size(remote_layout.manifest_path(exact)) is not None else key
        return exact if self._objects.size(remote_layout.manifest_path(exact)) is not None else None

    def _further(self, key: str) -> list[str]:
        """Names of the contents of a key beside its first one."""
        names = map(remote_layout.name_of, self._objects.listing(f"{remote_layout.MANIFESTS}/{key[:2]}"))
        return sorted(name for name in names if name.startswith(f"{key}.") and is_address(name))

    def _manifest_at(self, name: str) -> Manifest:
        path, (key, content) = remote_layout.manifest_path(name), parse_address(name)
        text = self._objects.read(path)
        if text is None:
            raise NotFound(f"no artifact {key} in {self.url}; it was never pushed there, or was removed")
        manifest = read_manifest(text.decode(errors="replace"), f"{self.url}/{path}")
        if manifest.key != key or content not in (None, manifest.digest):
            raise ArtifactCorrupt(
                f"{self.url}/{path}: is the manifest of {manifest.address}; it was put into the wrong place"
            )
        return manifest

    def lease(
        self,
        keys: Iterable[str],
        what: str,
        blobs: Iterable[str] = (),
        *,
        waiting: lease.Waiting | None = None,
    ) -> AbstractContextManager[lease.Lease]:
        """Keep artifacts, and files that are being sent, from every sweep until the block ends."""
        self._record()  # says that there is no bucket, where there is none
        return lease.hold(self.objects, keys, what, blobs=blobs, waiting=waiting)

    @contextmanager
    def reading(self, keys: Iterable[str], what: str) -> Iterator[None]:
        """Keep artifacts that are only read from every sweep, unless these credentials may not write."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.lease(keys, what))
            except StoreUnusable as exc:
                if not isinstance(exc.__cause__, PermissionDeniedError | UnauthenticatedError):
                    raise
                log.info("%s may only be read, so that no lease is written there", self.url)
            yield

    def push(self, root: Path, manifest: Manifest, progress: Progress | None = None) -> bool:
        """Send the artifact in `root` unless it is there; return whether it was sent.

        An interrupted push is continued: what has arrived is not sent again. Other contents of its key stay.
        """
        digests = {record.sha256 for record in manifest.files.values()}
        what, part_bytes = f"push {manifest.kind} {manifest.key[:12]}", self.record.part_bytes
        with self.lease([manifest.key], what, digests) as held:
            if self.has(manifest.address):
                return False
            told = _counted(manifest.size_bytes, progress)
            remote_upload.push_files(self._objects, part_bytes, root, manifest.files, told)
            held.require()
            self._commit(manifest)
            held.require()
        return True

    def _commit(self, manifest: Manifest) -> None:
        """Writes the manifest under the key, or under its address where another content has that.

        Of two that are written at one moment the later goes to its address too: servers that know conditional
        writes refuse it the key, from others it is read back.
        """
        text, first = manifest.to_text().encode(), remote_layout.manifest_path(manifest.key)
        if self._objects.size(first) is None:
            self._objects.create(first, text)
        if self._objects.read(first) != text and not self.has(manifest.address):
            self._objects.write(remote_layout.manifest_path(manifest.address), text)

    def fetch(self, record: FileRecord, target: Path) -> bool:
        """Write one content to a new file, verified; False where it is not in the store undamaged."""
        try:
            self.fetch_files({target.name: record}, target.parent)
        except ArtifactCorrupt:
            target.unlink(missing_ok=True)
            return False
        return True

    def fetch_files(
        self, files: Mapping[str, FileRecord], into: Path, progress: Progress | None = None
    ) -> None:
        """Make the files below `into` what their records say; parts that are right there are kept.

        Bytes that cannot be had as their digests say are an ArtifactCorrupt.
        """
        told = _counted(sum(record.size for record in files.values()), progress)
        remote_download.fetch(self._objects, self.record.part_bytes, files, into, told)

    def verify(self, key: str, progress: Progress | None = None) -> list[str]:
        """Everything wrong with the artifact, by reading all of it from the store; each names its file."""
        try:
            manifest = self.manifest(key)
        except ArtifactCorrupt as exc:
            return [f"manifest.json: {exc}"]
        return [f"{name}: {what}" for name, what in self.differing(manifest.files, progress)]

    def differing(
        self, files: Mapping[str, FileRecord], progress: Progress | None = None
    ) -> Iterator[tuple[str, str]]:
        """Name and what is wrong of each file that is damaged in the store, by reading all of them."""
        told = _counted(sum(record.size for record in files.values()), progress)
        return remote_download.differing(self._objects, self.record.part_bytes, files, told)

    def replace(self, record: FileRecord, source: Path) -> None:
        """Send a content anew in place of one that is damaged."""
        with self.lease([], f"the repair of {record.sha256[:12]}", [record.sha256]):
            self.drop(record.sha256)
            files = {source.name: record}
            remote_upload.push_files(
                self._objects, self.record.part_bytes, source.parent, files, lambda size: None
            )

    def drop(self, sha256: str) -> None:
        """Remove a content that is damaged: whoever pushes it next sends it again."""
        parts = self._objects.listing(remote_layout.parts_prefix(sha256))
        for path in (remote_layout.index_path(sha256), remote_layout.blob_path(sha256), *parts):
            self._objects.remove(path)

    def restore(self, name: str, manifest: Manifest) -> None:
        """Write a manifest anew in place of the one of that name, which is damaged."""
        self._objects.write(remote_layout.manifest_path(name), manifest.to_text().encode())

    def discard(self, key: str) -> None:
        """Set an artifact's manifest aside: it is no longer committed, and is built again if it is wanted."""
        name = self.named(key)
        text = self._objects.read(remote_layout.manifest_path(name))
        if text is not None:
            self._objects.write(f"{remote_layout.QUARANTINE}/{name}.json", text)
            self._objects.remove(remote_layout.manifest_path(name))

    def prepare(self) -> None:
        """Prove that the store can be written, by writing; otherwise a StoreUnusable."""
        probe = f"probes/{uuid.uuid4().hex}"
        self._objects.write(probe, b"1")
        self._objects.remove(probe)


def _counted(total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def told(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    return told
