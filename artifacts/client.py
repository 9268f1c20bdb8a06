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
from typing import Any

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
from artifacts.store.draft import Progress
from artifacts.store.local import LocalStore, open_store
from artifacts.store.opening import DEFAULT_STORE
from artifacts.trust import papers
from artifacts.trust.provenance import Attestation
from artifacts.trust.signing import Signature, require_signed
from artifacts.version import parse_reference
from recipes.regular import is_directory

__all__ = ["Client", "verify_pulled"]


class Client:
    """Published versions of one store and registry."""

    trusted_keys: Mapping[str, str] | None = None
    """Id -> public key, PEM: only what one of them signed is pulled. None: anything is."""

    def __init__(self, store_url: str | Path | None = None, registry_url: str | None = None) -> None:
        """Opens the store named, or `$ENGINERY_STORE`, or `~/.enginery`.

        The registry is the one named, or `$ENGINERY_REGISTRY`, or the one in the store. A URL that names no
        store is a StoreUnknown; a registry's file in a directory that is not there is a FileRefused.
        """
        self.store: LocalStore = open_store(store_url or os.environ.get("ENGINERY_STORE", DEFAULT_STORE))
        self._named = registry_url or os.environ.get("ENGINERY_REGISTRY")
        if self._named:
            require_place(self._named)

    @property
    def registry_named(self) -> str | None:
        """The registry that was named; None where it is the store's own."""
        return self._named

    @property
    def _registry_url(self) -> str:
        return self._named or self.store.registry_url

    @cached_property
    def registry(self) -> Registry:
        """Names, versions and aliases; what has no verb here is there: policies, waivers."""
        return open_registry(self._registry_url)

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return self.registry.names()

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound, with the close names, where it has none."""
        return self.registry.versions(name)

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound."""
        return self.registry.resolve(reference)

    def find(self, *, rank: str = "speed", limit: int | None = None, **wanted: Any) -> list[Match]:
        """The first `limit` versions that suit, best first, then the others with the reasons against them.

        `artifacts.finding.match.WANTED` says what can be wanted; anything else is a ValueError.
        """
        return self.registry.find(rank=rank, limit=limit, **wanted)

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> number of the version that it points at, sorted; NotFound for a name without versions."""
        self.registry.versions(name)
        return self.registry.aliases(name)

    def history(self, name: str, alias: str | None = None) -> list[Move]:
        """Every move of a name's aliases, or of one, oldest first."""
        return self.registry.history(name, alias)

    def log(self, name: str | None = None, *, newest: int | None = None) -> list[Event]:
        """What happened to a name (None: to all), oldest first; the newest so many."""
        return self.registry.events(name, newest=newest)

    def compare(self, before: str, after: str) -> Comparison:
        """What differs between two versions, and whether it is more than noise, by what is registered.

        `enginery diff` is sharper where both were scored on the same samples: it reads those.
        """
        return compare(self.resolve(before), self.resolve(after))

    def judge(self, reference: str, alias: str) -> Judgement:
        """What an alias's policy says of a version; nothing is changed."""
        record = self.resolve(reference)
        return self.registry.judge(record.name, record.number, alias)

    def promote(
        self, reference: str, alias: str, *, expect: int | None = None, new: bool = False
    ) -> VersionRecord:
        """Point an alias at a version; return the version.

        An alias that is not at `expect` (None: where it is found; `new`: nowhere yet) is an AliasMoved, and a
        version that is not what the alias's policy asks a PolicyRefused.
        """
        record = self.resolve(reference)
        found = self.registry.aliases(record.name).get(alias) if expect is None else expect
        self.registry.promote(record.name, alias, to=record.number, expect=None if new else found)
        return self.resolve(record.reference)

    def rollback(self, reference: str, *, to: int | None = None, expect: int | None = None) -> Move:
        """Point `NAME@ALIAS` back at the version before, or at `to` where it has been; return the move.

        No policy stands in the way. NotFound where there is no such version, AliasMoved if it is not at
        `expect`.
        """
        wanted = parse_reference(reference)
        if wanted.alias is None:
            raise NotFound(f"{reference!r} names no alias; write NAME@ALIAS")
        return self.registry.rollback(wanted.name, wanted.alias, to=to, expect=expect)

    def pull(self, reference: str, dest: str | Path, *, progress: Progress | None = None) -> Path:
        """Copy a version to `dest`, which appears at once and complete, every byte verified; return its path.

        A `dest` that holds something is a DestinationTaken, a damaged file in the store an ArtifactCorrupt,
        a registry of another store a StoreMismatch, a version without a signature that counts a NotTrusted.
        An interrupted pull is continued by the next one.
        """
        record, target = self.resolve(reference), Path(dest).absolute()
        self.require_own_store()
        with pulling(self.store, open_database(self._registry_url), record):
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
        """Follow `NAME@ALIAS` for ever: each version it points at, once `dest/current` is that version."""
        return watch(self, reference, dest, every_s=every_s, keep=keep)

    def verify(self, reference: str | Path) -> list[str]:
        """Everything wrong with a version in the store, or with a pulled directory, by reading all of it."""
        directory = Path(reference)
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
        """The keys that vouch for a version, or for a pulled directory; none is a NotTrusted."""
        if is_directory(reference):
            return papers.require_trusted(Path(reference), keys)
        record = self.resolve(str(reference))
        manifest = self.manifest(record)
        return require_signed(record, manifest, self._endorsed(manifest)[0], keys)

    def manifest(self, record: VersionRecord) -> Manifest:
        """The manifest of what a version is; NotFound where the store has it not, or another build only."""
        try:
            return self.store.manifest(record.address)
        except NotFound as exc:
            raise NotFound(self._lacking(record, exc)) from None

    def _lacking(self, record: VersionRecord, said: NotFound) -> str:
        """What to say of a version whose content the store does not have, and what to do."""
        if record.collected_at is not None:
            return retention.gone(record.reference, record.collected_at)
        others = set(self.store.contents(record.engine_key))
        database = open_database(self._registry_url)
        with database.reading() as db:
            named = [one.reference for one in retention.known(db).versions if one.address in others]
        which = f", which is {', '.join(named)}" if named else ", which no version is" if others else ""
        return (
            f"{record.reference}: {said}{which}; bring its files back "
            f"(enginery store repair {record.reference} --from STORE|DIRECTORY),"
            " or build its recipe again: what comes out otherwise is a new version"
        )

    def require_own_store(self) -> None:
        """Raise a StoreMismatch if the registry names the artifacts of another store than this one."""
        if self.registry.bound() is not None:
            identity = self.store.identity()
            self.registry.require_store(Binding(identity.id if identity else "", self.store.url))

    def _endorsed(self, manifest: Manifest) -> tuple[list[Signature], list[Attestation]]:
        kept = Endorsements(self.registry.database)
        return kept.signatures(manifest.digest), kept.attestations(manifest.key, manifest.digest)
