"""Published versions from Python: the verbs of the command line, typed, in a few lines, without torch.

    from artifacts.client import Client

    client = Client("STORE")  # a directory, s3://BUCKET/PREFIX, ...; or $ENGINERY_STORE
    for match in client.find(format="fp8", tp=2):
        print(match.record.reference, match.dropped or "suits")
    client.promote("demo/fp8_tp2:2", "prod")
    engine = client.pull("demo/fp8_tp2@prod", "DIRECTORY")
    assert client.verify(engine) == []
    print(client.compare("demo/fp8_tp2:1", "demo/fp8_tp2@prod").summary)
    print(client.rollback("demo/fp8_tp2@prod").now, [event.kind for event in client.log("demo/fp8_tp2")])

Every error that can be met is in `artifacts.errors` and says what to do.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.finding.compare import Comparison, compare
from artifacts.manifest import MANIFEST, VERSION, Manifest
from artifacts.pull import pulled
from artifacts.pull.pull_lease import pulling
from artifacts.pull.pulled import Parcel, verify_pulled
from artifacts.pull.watch import Change, watch
from artifacts.registry import retention
from artifacts.registry.database import open_database, require_place
from artifacts.registry.endorsement import Endorsements
from artifacts.registry.registry import (
    Binding,
    Event,
    Judgement,
    Match,
    Move,
    Registry,
    VersionRecord,
    open_registry,
)
from artifacts.store.opening import DEFAULT_STORE, open_store
from artifacts.trust import papers
from artifacts.trust.provenance import Attestation
from artifacts.trust.signing import Signature, require_signed
from artifacts.version import parse_reference
from recipes.regular import is_directory

if TYPE_CHECKING:
    from artifacts.store.local import LocalStore

__all__ = ["Client", "verify_pulled"]


class Client:
    """Published versions of one store and registry."""

    trusted_keys: Mapping[str, str] | None = None
    """Id -> public key, PEM: `pull` refuses versions that none of them signed. None: no check."""

    def __init__(self, store_url: str | Path | None = None, registry_url: str | None = None) -> None:
        """Opens the store at `store_url`, `$ENGINERY_STORE` or `~/.enginery`, in this order.

        The registry is the one at `registry_url`, `$ENGINERY_REGISTRY` or in the store. A URL of no store is
        a StoreUnknown; a registry file in a missing directory is a FileRefused.
        """
        self.store: LocalStore = open_store(store_url or os.environ.get("ENGINERY_STORE", DEFAULT_STORE))
        self._named = registry_url or os.environ.get("ENGINERY_REGISTRY")
        if self._named:
            # Now, so that a wrong path is an error of the constructor and not of some later call.
            require_place(self._named)

    @property
    def registry_named(self) -> str | None:
        """URL of the registry from the argument or the environment; None for the store's own registry."""
        return self._named

    @property
    def _registry_url(self) -> str:
        return self._named or self.store.registry_url

    @cached_property
    def registry(self) -> Registry:
        """Names, versions and aliases, and what this class has no method for: policies, waivers."""
        return open_registry(self._registry_url)

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return self.registry.names()

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound with similar names where there is none."""
        return self.registry.versions(name)

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound."""
        return self.registry.resolve(reference)

    def find(self, *, rank: str = "speed", limit: int | None = None, **criteria: Any) -> list[Match]:
        """The first `limit` matching versions, best first, then the others with the reasons against them.

        `artifacts.finding.match.CRITERIA` lists the criteria; any other is a ValueError.
        """
        return self.registry.find(rank=rank, limit=limit, **criteria)

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> version number, sorted by alias; NotFound for a name without versions."""
        self.registry.versions(name)
        return self.registry.aliases(name)

    def history(self, name: str, alias: str | None = None) -> list[Move]:
        """Every move of a name's aliases, or of one, oldest first."""
        return self.registry.history(name, alias)

    def log(self, name: str | None = None, *, newest: int | None = None) -> list[Event]:
        """Events of a name (None: of all names), oldest first; only the `newest` ones where given."""
        return self.registry.events(name, newest=newest)

    def compare(self, before: str, after: str) -> Comparison:
        """Differences between two versions, and whether they exceed noise, from registered measurements.

        `enginery diff` decides more cases where both were scored on the same samples: it compares pairwise.
        """
        return compare(self.resolve(before), self.resolve(after))

    def judge(self, reference: str, alias: str) -> Judgement:
        """The judgement of an alias's policy on a version; changes nothing."""
        record = self.resolve(reference)
        return self.registry.judge(record.name, record.number, alias)

    def promote(
        self, reference: str, alias: str, *, expect: int | None = None, new: bool = False
    ) -> VersionRecord:
        """Point an alias at a version; return the version.

        AliasMoved where the alias does not point at `expect` (None: its present version; with `new`: the
        alias must not exist yet); PolicyRefused where the version violates the alias's policy.
        """
        record = self.resolve(reference)
        # Read now and compared inside the transaction: a promotion by somebody else in between is an
        # AliasMoved.
        expected = self.registry.aliases(record.name).get(alias) if expect is None else expect
        self.registry.promote(record.name, alias, to=record.number, expect=None if new else expected)
        # Read again: the record from before the move does not have the alias.
        return self.resolve(record.reference)

    def rollback(self, reference: str, *, to: int | None = None, expect: int | None = None) -> Move:
        """Point `NAME@ALIAS` at its previous version, or at `to` if it pointed there before; return the move.

        Policies are not applied. NotFound where there is no such version, AliasMoved where the alias does
        not point at `expect`.
        """
        target = parse_reference(reference)
        if target.alias is None:
            raise NotFound(f"{reference!r} names no alias; write NAME@ALIAS")
        return self.registry.rollback(target.name, target.alias, to=to, expect=expect)

    def pull(self, reference: str, dest: str | Path, *, progress: Progress | None = None) -> Path:
        """Copy a version to `dest`, verify every byte, and make `dest` appear atomically; return its path.

        DestinationTaken for a `dest` that is not empty, ArtifactCorrupt for a damaged file in the store,
        StoreMismatch for a registry of another store, NotTrusted for a version without a trusted signature.
        The next pull resumes an interrupted one.
        """
        record, target = self.resolve(reference), Path(dest).absolute()
        self.require_own_store()
        with pulling(self.store, open_database(self._registry_url), record):
            # Again, under the lease: a gc may have collected the version since.
            record = self.resolve(record.reference)
            manifest = self.manifest(record)
            signatures, attestations = self._endorsed(manifest)
            if self.trusted_keys is not None:
                require_signed(record, manifest, signatures, self.trusted_keys)
            parcel = Parcel(
                record=record, manifest=manifest, signatures=signatures, attestations=attestations
            )
            pulled.place(parcel, self.store, target, progress)
        return target

    def watch(
        self, reference: str, dest: str | Path, *, every_s: float = 30.0, keep: int = 2
    ) -> Iterator[Change]:
        """Follow `NAME@ALIAS` without end: yield each version once `dest/current` links to it."""
        return watch(self, reference, dest, every_s=every_s, keep=keep)

    def verify(self, reference: str | Path) -> list[str]:
        """Every problem of a version in the store, or of a pulled directory; reads every byte."""
        directory = Path(reference)
        # A name of a version may look like a path.
        if isinstance(reference, Path) or (directory / VERSION).is_file():
            return verify_pulled(directory)
        record = self.resolve(str(reference))
        self.require_own_store()
        with self.store.reading([record.engine_key], f"the verification of {record.reference}"):
            try:
                self.manifest(record)
            except ArtifactCorrupt as exc:
                return [f"{MANIFEST}: {exc}"]
            return self.store.verify(record.address)

    def require_trusted(self, reference: str | Path, keys: Mapping[str, str]) -> tuple[str, ...]:
        """Ids of the trusted keys that signed a version or a pulled directory; NotTrusted if none did."""
        if is_directory(reference):
            return papers.require_trusted(Path(reference), keys)
        record = self.resolve(str(reference))
        manifest = self.manifest(record)
        return require_signed(record, manifest, self._endorsed(manifest)[0], keys)

    def manifest(self, record: VersionRecord) -> Manifest:
        """The manifest of a version; NotFound where the store lacks it or has only another build."""
        try:
            return self.store.manifest(record.address)
        # The store knows only the key; the registry adds the version and what to do.
        except NotFound as exc:
            raise NotFound(self._lacking(record, exc)) from None

    def _lacking(self, record: VersionRecord, error: NotFound) -> str:
        """The message for a version whose content the store lacks, with the remedy."""
        if record.collected_at is not None:
            return retention.collected_message(record.reference, record.collected_at)
        other_contents = set(self.store.contents(record.engine_key))
        database = open_database(self._registry_url)
        with database.reading() as db:
            references = [
                version.reference
                for version in retention.read_retention(db).versions
                if version.address in other_contents
            ]
        holder = (
            f", which is {', '.join(references)}"
            if references
            else ", which no version is"
            if other_contents
            else ""
        )
        return (
            f"{record.reference}: {error}{holder}; bring its files back (enginery store repair "
            f"{record.reference} --from STORE|DIRECTORY), or build its recipe again: "
            "a build that differs becomes a new version"
        )

    def require_own_store(self) -> None:
        """Raise a StoreMismatch if the registry is bound to another store."""
        if self.registry.bound() is not None:
            identity = self.store.identity()
            self.registry.require_store(Binding(identity.id if identity else "", self.store.url))

    def _endorsed(self, manifest: Manifest) -> tuple[list[Signature], list[Attestation]]:
        endorsements = Endorsements(self.registry.database)
        return endorsements.signatures(manifest.digest), endorsements.attestations(
            manifest.key, manifest.digest
        )
