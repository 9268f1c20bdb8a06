"""Which contents a store in a directory has of a key, and where.

The first content of a key is in `objects/KEY[:2]/KEY`, a further one, made by a build that was not
bit-identical, in `objects/KEY[:2]/KEY.DIGEST`.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from artifacts.address import is_address, parse_address
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, Manifest, read_manifest
from artifacts.store.holding import Holding


class Contents(Holding):
    """What a store in a directory finds by key or by address; `LocalStore` is the whole."""

    def path(self, key: str) -> Path:
        """Directory that the artifact has, or will have.

        Of a key with several contents any of them, always the same; of `KEY.DIGEST` that very content, which
        lies under its key alone if it was the first.
        """
        base, content = parse_address(key)
        first = self.slot(base)
        if content is None:
            return first if (first / MANIFEST).is_file() else next(iter(self._further(base)), first)
        exact = self.slot(key)
        return exact if exact.is_dir() or not self._may_hold(first, content) else first

    def slot(self, name: str) -> Path:
        """The directory of that very name: a key's first content, or a further one by its address."""
        return self.root / "objects" / name[:2] / name

    def contents(self, key: str) -> list[str]:
        """Addresses of every content of a key that can be read, the one first that builds find."""
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
        """Whether a directory has that content; one whose manifest is damaged may have."""
        try:
            return self._manifest_in(place, place.name).digest == content
        except NotFound:
            return False
        except ArtifactCorrupt:
            return True

    def has(self, key: str) -> bool:
        """Whether the artifact was committed; `intact` says whether it still is what was committed."""
        return (self.path(key) / MANIFEST).is_file()

    def keys(self) -> list[str]:
        """Everything committed, sorted: the key of each first content, the address of each further one."""
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
        if manifest.key != key or content not in (None, manifest.digest):
            raise ArtifactCorrupt(
                f"{path}: is the manifest of {manifest.address}; it was put into the wrong place"
            )
        return manifest


def absent(name: str, store: str, contents: Iterable[str]) -> str:
    """What to say of an artifact that a store does not have; it may have other contents of the key."""
    (key, content), other_contents = parse_address(name), list(contents)
    if content is None or not other_contents:
        return f"no artifact {key} in {store}; it was never built here, or was removed"
    digests = ", ".join(other.rpartition(".")[2][:16] for other in other_contents)
    return (
        f"{store} does not have engine {key[:12]} with digest {content[:16]}: it has another build of that"
        f" key, with digest {digests}"
    )
