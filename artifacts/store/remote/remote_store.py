"""The store in object storage: lookups, pushes and fetches of artifacts."""

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
from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnusable
from artifacts.manifest import FileRecord, Manifest, read_manifest
from artifacts.store import lease
from artifacts.store.contents import absent
from artifacts.store.remote import remote_download, remote_layout, remote_upload
from artifacts.store.remote.remote_objects import Objects
from artifacts.store.remote.remote_place import Patience, Place
from artifacts.store.store_identity import Identity

log = logging.getLogger(__name__)


class RemoteStore:
    """Artifacts below one prefix of an object store; the presence of a manifest is the commit."""

    def __init__(
        self, place: Place, patience: Patience | None = None, *, part_bytes: int = remote_layout.PART_BYTES
    ) -> None:
        """`part_bytes` is used only if the store does not exist yet."""
        self.url = place.url
        self._objects = Objects(place, patience or Patience())
        self._part_bytes = part_bytes

    @property
    def objects(self) -> ObjectStore:
        """The object store client; paths are relative to the store's prefix."""
        return self._objects.handle

    @cached_property
    def record(self) -> remote_layout.StoreRecord:
        """The store's record about itself; written if there is none yet."""
        if (record := self._record()) is None:
            new_record = remote_layout.StoreRecord(
                layout=1, id=secrets.token_hex(32), part_bytes=self._part_bytes
            )
            self._objects.create(remote_layout.STORE, new_record.to_text().encode())
            record = self._record()  # another writer's, if both created it
        if record is None:
            raise StoreUnusable(
                f"{self.url}: {remote_layout.STORE} was written but cannot be found; run again"
            )
        return record

    def _record(self) -> remote_layout.StoreRecord | None:
        text = self._objects.read(remote_layout.STORE)
        if text is None:
            return None
        return remote_layout.read_store(text.decode(errors="replace"), f"{self.url}/{remote_layout.STORE}")

    @property
    def id(self) -> str:
        """Random id, which identifies the store under any URL."""
        return self.record.id

    def identity(self) -> Identity | None:
        """Id and layout, None before the first write."""
        record = self._record()
        return None if record is None else Identity(record.layout, record.id)

    def has(self, key: str) -> bool:
        """Whether the artifact was committed; for an address, exactly that content."""
        base, content = parse_address(key)
        if content is not None:
            return self._holding(base, content) is not None
        return self._objects.size(remote_layout.manifest_path(base)) is not None or bool(self._further(base))

    def keys(self) -> list[str]:
        """Everything committed, sorted: the key of each first content, the address of each further one."""
        names = map(remote_layout.name_of, self._objects.listing(remote_layout.MANIFESTS))
        return sorted(name for name in names if is_address(name))

    def contents(self, key: str) -> list[str]:
        """Addresses of every readable content of a key; lookups by key find the first."""
        addresses = []
        for name in (key, *self._further(key)):
            with suppress(ArtifactCorrupt, NotFound):
                addresses.append(self._manifest_at(name).address)
        return list(dict.fromkeys(addresses))

    def manifest(self, key: str) -> Manifest:
        """The artifact's manifest; NotFound where there is none, ArtifactCorrupt where it was changed."""
        base, content = parse_address(key)
        if content is not None:
            name = self._holding(base, content)
            if name is None:
                # The key may have other contents; the message lists them.
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
        """Name of an artifact's manifest, existing or not."""
        base, content = parse_address(key)
        return key if content is None else self._holding(base, content) or key

    def _holding(self, key: str, content: str) -> str | None:
        """Name of the content's manifest; the key where the first content's manifest is damaged."""
        exact = address(key, content)
        try:
            if self._manifest_at(key).digest == content:
                return key
        except NotFound:
            pass
        except ArtifactCorrupt:
            # A damaged first manifest may be of this content, so the key is the name to repair or discard.
            return exact if self._objects.size(remote_layout.manifest_path(exact)) is not None else key
        return exact if self._objects.size(remote_layout.manifest_path(exact)) is not None else None

    def _further(self, key: str) -> list[str]:
        """Names of the contents of a key other than the first."""
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
        purpose: str,
        blobs: Iterable[str] = (),
        *,
        waiting: lease.Waiting | None = None,
    ) -> AbstractContextManager[lease.Lease]:
        """Protect artifacts, and contents that are being sent, from every sweep until the block ends."""
        self._record()  # raises the right error for a missing bucket
        return lease.hold(self.objects, keys, purpose, blobs=blobs, waiting=waiting)

    @contextmanager
    def reading(self, keys: Iterable[str], purpose: str) -> Iterator[None]:
        """Protect artifacts that are only read from every sweep, if the credentials allow writing."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.lease(keys, purpose))
            except StoreUnusable as exc:
                # Only missing rights are tolerated: after any other failure, a sweep could remove the files.
                if not isinstance(exc.__cause__, PermissionDeniedError | UnauthenticatedError):
                    raise
                log.info("%s is read-only with these credentials, so no lease is written", self.url)
            yield

    def push(self, root: Path, manifest: Manifest, progress: Progress | None = None) -> bool:
        """Send the artifact in `root` unless the store has it; return whether it was sent.

        An interrupted push is resumed: parts that have arrived are not sent again. Other contents of its key
        stay.
        """
        # Leased too: until the commit no manifest names these contents, so a sweep would take them.
        digests = {record.sha256 for record in manifest.files.values()}
        purpose, part_bytes = f"push {manifest.kind} {manifest.key[:12]}", self.record.part_bytes
        with self.lease([manifest.key], purpose, digests) as lease_:
            if self.has(manifest.address):
                return False
            on_bytes = _byte_counter(manifest.size_bytes, progress)
            # Files before the manifest: the manifest is the commit and must never name absent contents.
            remote_upload.push_files(self._objects, part_bytes, root, manifest.files, on_bytes)
            lease_.require()
            self._commit(manifest)
            lease_.require()
        return True

    def _commit(self, manifest: Manifest) -> None:
        """Write the manifest under the key, or under its address if another content has the key.

        Of two concurrent commits, the later one goes to its address: a server with conditional writes rejects
        it under the key; on other servers, reading the key back shows which manifest won.
        """
        text, first = manifest.to_text().encode(), remote_layout.manifest_path(manifest.key)
        if self._objects.size(first) is None:
            self._objects.create(first, text)
        # Read back: without conditional writes, only this shows which of two manifests won.
        if self._objects.read(first) != text and not self.has(manifest.address):
            self._objects.write(remote_layout.manifest_path(manifest.address), text)

    def fetch(self, record: FileRecord, target: Path) -> bool:
        """Write one content to a new file, verified; False where the store has no intact copy."""
        try:
            self.fetch_files({target.name: record}, target.parent)
        except ArtifactCorrupt:
            target.unlink(missing_ok=True)
            return False
        return True

    def fetch_files(
        self, files: Mapping[str, FileRecord], directory: Path, progress: Progress | None = None
    ) -> None:
        """Make the files below `directory` match their records; keeps parts that are intact there.

        ArtifactCorrupt where the store has no intact copy of a file.
        """
        on_bytes = _byte_counter(sum(record.size for record in files.values()), progress)
        remote_download.fetch(self._objects, self.record.part_bytes, files, directory, on_bytes)

    def verify(self, key: str, progress: Progress | None = None) -> list[str]:
        """Every problem of the artifact, each with its file; reads every byte from the store."""
        try:
            manifest = self.manifest(key)
        except ArtifactCorrupt as exc:
            return [f"manifest.json: {exc}"]
        return [f"{name}: {problem}" for name, problem in self.differing(manifest.files, progress)]

    def differing(
        self, files: Mapping[str, FileRecord], progress: Progress | None = None
    ) -> Iterator[tuple[str, str]]:
        """Name and problem of each file that is damaged in the store; reads all of them."""
        on_bytes = _byte_counter(sum(record.size for record in files.values()), progress)
        return remote_download.differing(self._objects, self.record.part_bytes, files, on_bytes)

    def replace(self, record: FileRecord, source: Path) -> None:
        """Replace a damaged content by the bytes of a file."""
        with self.lease([], f"the repair of {record.sha256[:12]}", [record.sha256]):
            # Dropped first: a push skips parts that exist, and here some of them are damaged.
            self.drop(record.sha256)
            files = {source.name: record}
            remote_upload.push_files(
                self._objects, self.record.part_bytes, source.parent, files, lambda size: None
            )

    def drop(self, sha256: str) -> None:
        """Remove a damaged content, so that the next push sends it again."""
        parts = self._objects.listing(remote_layout.parts_prefix(sha256))
        for path in (remote_layout.index_path(sha256), remote_layout.blob_path(sha256), *parts):
            self._objects.remove(path)

    def restore(self, name: str, manifest: Manifest) -> None:
        """Replace the damaged manifest with this name."""
        self._objects.write(remote_layout.manifest_path(name), manifest.to_text().encode())

    def discard(self, key: str) -> None:
        """Move an artifact's manifest to the quarantine: it is no longer committed and can be built again."""
        name = self.named(key)
        text = self._objects.read(remote_layout.manifest_path(name))
        if text is not None:
            # Copy first: a crash between the two leaves both, never neither.
            self._objects.write(f"{remote_layout.QUARANTINE}/{name}.json", text)
            self._objects.remove(remote_layout.manifest_path(name))

    def prepare(self) -> None:
        """Write to the store to prove that it is writable; otherwise a StoreUnusable."""
        probe = f"probes/{uuid.uuid4().hex}"
        self._objects.write(probe, b"1")
        self._objects.remove(probe)


def _byte_counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    return count
