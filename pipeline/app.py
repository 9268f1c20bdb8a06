"""What every command shares: the output, and the store, registry and host opened on first use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.output import Output
from recipes.regular import is_text, user_path

if TYPE_CHECKING:
    from artifacts.client import Client
    from artifacts.registry.registry import Registry
    from pipeline.plan import Plan
    from pipeline.planning import Draft
    from pipeline.steps import Site
    from recipes.load import Loaded


ODD_SHOWN = 20
"""Odd rows of the registry that a command names; `verify --all` names every one."""


class App:
    """One call of the command line."""

    def __init__(
        self, store_url: str, registry_url: str | None, *, json_mode: bool, quiet: bool, color: bool
    ) -> None:
        if not store_url:
            raise click.UsageError("--store (or ENGINERY_STORE) is empty; give a directory")
        if not is_text(store_url) or not is_text(registry_url or ""):
            raise click.UsageError("--store or --registry (or its variable) is not UTF-8 text; give text")
        self.store_url = store_url if "://" in store_url else str(user_path(store_url))
        self.registry_url = registry_url
        self.out = Output(json_mode=json_mode, quiet=quiet, color=color)
        self._odd: dict[str, None] = {}

    @cached_property
    def site(self) -> "Site":
        """The store and this host; litter of dead processes is swept."""
        from artifacts.store.local import open_store  # commands that only print need no store
        from pipeline.host import probe
        from pipeline.steps import Site

        store = open_store(self.store_url)
        store.sweep()
        return Site(store=store, host=probe())

    @cached_property
    def client(self) -> "Client":
        """The consumer's view of store and registry."""
        from artifacts.client import Client  # SQLAlchemy costs 0.2 s; planning does without
        from artifacts.registry import rows

        rows.collect_into(self._odd)
        return Client(self.store_url, self.registry_url)

    def tell_odd(self) -> None:
        """Names the rows of the registry that answers left out."""
        found = list(self._odd)
        for one in found[:ODD_SHOWN]:
            self.out.warn(f"{one}; the row is left out, see `enginery verify --all`")
        if len(found) > ODD_SHOWN:
            self.out.warn(f"{len(found) - ODD_SHOWN} more rows of the registry are odd and left out")
        self._odd.clear()

    @property
    def registry(self) -> "Registry":
        """Names, versions and aliases."""
        return self.client.registry

    @contextmanager
    def announcing(self) -> Iterator[None]:
        """Lets subscribers hear of what the block wrote, also where it ends with a refusal."""
        try:
            yield
        finally:
            self.announce()

    def announce(self) -> None:
        """Lets subscribers hear of what this command wrote; it goes on at once, and never fails for it."""
        from artifacts.errors import StoreUnusable  # only commands that write
        from pipeline.notify import soon

        try:
            soon(self.registry, self.registry_url or self.client.store.registry_url, os.environ)
        except (OSError, StoreUnusable) as exc:
            self.out.warn(f"subscribers were not told yet: {exc}; `enginery notify` does")

    def plans(self, file: Path) -> "list[tuple[Loaded, Plan]]":
        """A plan for every recipe of a file, refused together with all reasons; warnings are told once."""
        from pipeline.planning import plan_file  # reads checkpoints and data: commands that plan only

        planned = plan_file(file, self.site)
        self._warn([loaded for loaded, _ in planned])
        return planned

    def drafts(self, file: Path) -> "list[Draft]":
        """A plan for every recipe of a file, with what this host lacks to carry it out."""
        from pipeline.planning import draft_file  # as above

        drafted = draft_file(file, self.site)
        self._warn([one.loaded for one in drafted])
        return drafted

    def _warn(self, recipes: "list[Loaded]") -> None:
        """Says what may be meant as it is, once for all recipes."""
        from pipeline.checks import warnings  # with the plans

        said = dict.fromkeys(text for loaded in recipes for text in warnings(loaded.recipe))
        for text in said if not self.out.quiet else ():
            self.out.warn(text)
