"""The store, the registry and the host of one command or one flow, opened on first use."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from artifacts.client import Client
    from artifacts.registry.registry import Registry
    from pipeline.step.realize import Site


class Workspace:
    """What one command or one flow works on."""

    def __init__(self, store_url: str, registry_url: str | None, warn: Callable[[str], None]) -> None:
        self.store_url, self.registry_url, self.warn = store_url, registry_url, warn
        self.odd_rows: dict[str, None] = {}
        """Rows of the registry that answers left out, in the order they were met."""

    @cached_property
    def site(self) -> "Site":
        """The store and this host; litter of dead processes is swept."""
        from artifacts.store.opening import open_store  # commands that only print need no store
        from pipeline.process.host import probe
        from pipeline.step.realize import Site

        store = open_store(self.store_url)
        store.sweep()
        return Site(store=store, host=probe())

    @cached_property
    def client(self) -> "Client":
        """The consumer's view of store and registry."""
        from artifacts.client import Client  # SQLAlchemy costs 0.2 s; planning does without
        from artifacts.registry import rows

        rows.collect_into(self.odd_rows)
        return Client(self.store_url, self.registry_url)

    @property
    def registry(self) -> "Registry":
        """Names, versions and aliases."""
        return self.client.registry

    @contextmanager
    def announcing(self) -> Iterator[None]:
        """Notifies subscribers of what the block wrote, also where it ends with a refusal."""
        try:
            yield
        finally:
            self.announce()

    def announce(self) -> None:
        """Starts the delivery of pending notifications; returns at once, and a failure is only a warning."""
        from artifacts.errors import StoreUnusable  # only commands that write
        from pipeline.run.announce import soon

        try:
            soon(self.registry, self.registry_url or self.client.store.registry_url, os.environ)
        except (OSError, StoreUnusable) as exc:
            self.warn(f"subscribers are not notified yet: {exc}; run `enginery registry notify`")
