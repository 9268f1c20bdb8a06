"""Finds the contents of keys in a store in a directory.

The first content of a key is in `objects/KEY[:2]/KEY`. Further contents, from builds that were not
bit-identical, are in `objects/KEY[:2]/KEY.DIGEST`.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from artifacts.address import is_address, parse_address
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, Manifest, read_manifest
from artifacts.store.holding import Holding


class Contents(Holding):
    """Lookups by key and address; the base of `LocalStore`."""

    def path(self, key: str) -> Path:
        """Directory of the artifact, existing or not.

        For a key with several contents, always the same one of them; for `KEY.DIGEST`, that content, which is
        under its key alone if it was the first.
        """
        base, content = parse_address(key)
        first = self.slot(base)
        if content is None:
            return first if (first / MANIFEST).is_file() else next(iter(self._further(base)), first)
        exact = self.slot(key)
        # A further content has a directory of its own; the first one lies under the key alone.
        return exact if exact.is_dir() or not self._may_hold(first, content) else first

    def slot(self, name: str) -> Path:
        """Directory with exactly this name: a key for its first content, an address for a further one."""
        return self.root / "objects" / name[:2] / name

    def contents(self, key: str) -> list[str]:
        """Addresses of every readable content of a key; lookups by key find the first."""
        directories = [
            directory
            for directory in (self.slot(key), *self._further(key))
            if (directory / MANIFEST).is_file()
        ]
        addresses = []
        for directory in directories:
            with suppress(ArtifactCorrupt, NotFound):
                addresses.append(self._manifest_in(directory, key).address)
        return list(dict.fromkeys(addresses))

    def _further(self, key: str) -> list[Path]:
        candidates = self.slot(key).parent.glob(f"{key}.*")
        return sorted(
            place for place in candidates if is_address(place.name) and (place / MANIFEST).is_file()
        )

    def _may_hold(self, place: Path, content: str) -> bool:
        """Whether a directory may have that content; one with a damaged manifest may."""
        try:
            return self._manifest_in(place, place.name).digest == content
        except NotFound:
            return False
        except ArtifactCorrupt:
            return True

    def has(self, key: str) -> bool:
        """Whether the artifact was committed; `intact` checks that it is unchanged."""
        return (self.path(key) / MANIFEST).is_file()

    def keys(self) -> list[str]:
        """Names of everything committed, sorted: keys of first contents, addresses of further ones."""
        names = (path.parent.name for path in self.root.glob(f"objects/??/*/{MANIFEST}"))
        return sorted(name for name in names if is_address(name))

    def manifest(self, key: str) -> Manifest:
        """The artifact's manifest; NotFound where there is none, ArtifactCorrupt where it was changed."""
        return self._manifest_in(self.path(key), key)

    def _manifest_in(self, place: Path, name: str) -> Manifest:
        path, (key, content) = place / MANIFEST, parse_address(name)
        try:
            text = path.read_bytes().decode(errors="replace")  # a broken byte breaks the seal
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(absent(name, str(self.root), self.contents(key))) from None
        manifest = read_manifest(text, str(path))
        # A valid seal says nothing about the place: a copied directory has one too.
        if manifest.key != key or content not in (None, manifest.digest):
            raise ArtifactCorrupt(
                f"{path}: is the manifest of {manifest.address}; it was put into the wrong place"
            )
        return manifest


def absent(name: str, store: str, contents: Iterable[str]) -> str:
    """The message for an artifact that a store lacks; `contents` are the key's other contents there."""
    (key, content), other_contents = parse_address(name), list(contents)
    if content is None or not other_contents:
        return f"no artifact {key} in {store}; it was never built here, or was removed"
    digests = ", ".join(other.rpartition(".")[2][:16] for other in other_contents)
    return (
        f"{store} does not have engine {key[:12]} with digest {content[:16]}: it has another build of that"
        f" key, with digest {digests}"
    )
