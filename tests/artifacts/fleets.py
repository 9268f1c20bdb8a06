"""Machines that share one remote store and one registry, and the engines that they build."""

import random
from dataclasses import dataclass

from artifacts import digest
from artifacts.collection import sweep
from artifacts.collection.marking import Plan, Policy
from artifacts.collection.places import RemotePlace
from artifacts.registry.database import open_database
from artifacts.registry.registry import Binding, Publication, Registry, open_registry
from artifacts.registry.retention import Names
from artifacts.store.cached import CachedStore
from tests.artifacts.remotes import PART, opened
from tests.artifacts.sweeping import EAGER
from tests.servers.s3 import Bucket


def engine(number: int) -> tuple[str, dict[str, bytes]]:
    """Key and files of one of a few engines; two share each long file."""
    shared = random.Random(number // 2).randbytes(3 * PART + 5)
    return digest.of_json(["engine", number]), {"rank0.bin": shared, "engine.json": bytes([number]) * 40}


def collect(url: str, registry: str, policy: Policy = EAGER) -> Plan:
    """A collection as a machine of its own does it."""
    names = Names(open_database(registry), inside=False)
    return sweep.collect(RemotePlace(opened(url).objects, url), names, policy)


@dataclass(frozen=True)
class Fleet:
    """Machines with one remote store and one registry."""

    bucket: Bucket
    registry_url: str
    here: CachedStore
    """The store as one of them has it; it holds an artifact that nobody needs."""

    @property
    def url(self) -> str:
        """Of the store."""
        return self.bucket.url

    @property
    def registry(self) -> Registry:
        """As one of them has it."""
        return open_registry(self.registry_url)

    def publish(self, key: str, alias: str | None = None) -> None:
        """Registers an artifact."""
        store = self.here
        self.registry.publish(
            Publication(name="demo", alias=alias, engine_key=key, manifest_digest=store.manifest(key).digest,
                        recipe={"of": key}, verdict="PASS", facts={}),
            store=Binding(store.id, store.url),
        )  # fmt: skip

    def collect(self) -> Plan:
        """A collection by one of them."""
        return collect(self.url, self.registry_url)

    def kept(self) -> set[str]:
        """Keys of everything that gc says it kept, which is there and right."""
        versions = self.registry.versions("demo")
        kept = {one.engine_key for one in versions if one.collected_at is None}
        assert {key: self.here.remote.verify(key) for key in kept} == {key: [] for key in kept}
        return kept

    def require_nothing_else(self, kept: set[str]) -> None:
        """The store holds what those artifacts need, and not one object more."""
        assert set(self.here.remote.keys()) == kept
        assert self.bucket.objects("leases") == []
        needed = {one.sha256 for key in kept for one in self.here.remote.manifest(key).files.values()}
        stored = {path.split("/")[2].partition(".")[0] for path in self.bucket.objects("blobs")}
        assert stored == needed
