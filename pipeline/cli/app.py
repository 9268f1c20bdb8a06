"""What every command shares: the workspace and the output."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import Output
from pipeline.run.workspace import Workspace
from recipes.regular import is_text, user_path

if TYPE_CHECKING:
    from pipeline.plan.plan import Plan
    from pipeline.plan.planning import Draft
    from recipes.load import Loaded


ODD_SHOWN = 20
"""Invalid rows of the registry that a command names; `verify --all` names all of them."""


class App(Workspace):
    """One call of the command line."""

    def __init__(
        self, store_url: str, registry_url: str | None, *, json_mode: bool, quiet: bool, color: bool
    ) -> None:
        if not store_url:
            raise click.UsageError("--store (or ENGINERY_STORE) is empty; give a directory")
        if not is_text(store_url) or not is_text(registry_url or ""):
            raise click.UsageError("--store or --registry (or its variable) is not UTF-8 text; give text")
        self.out = Output(json_mode=json_mode, quiet=quiet, color=color)
        place = store_url if "://" in store_url else str(user_path(store_url))
        super().__init__(place, registry_url, self.out.warn)

    def warn_of_invalid_rows(self) -> None:
        """Prints the invalid rows that answers left out."""
        rows = list(self.odd_rows)
        for row in rows[:ODD_SHOWN]:
            self.out.warn(f"{row}; the row is left out, see `enginery verify --all`")
        if len(rows) > ODD_SHOWN:
            self.out.warn(f"{len(rows) - ODD_SHOWN} more invalid rows of the registry are left out")
        self.odd_rows.clear()

    def plans(self, file: Path) -> "list[tuple[Loaded, Plan]]":
        """A plan for every recipe of a file, refused together with all reasons; warnings are told once."""
        from pipeline.plan.planning import plan_one  # reads checkpoints and data: commands that plan only
        from recipes.load import load

        planned = [(loaded, plan_one(loaded, self.site)) for loaded in load(file)]
        self._warn([loaded for loaded, _ in planned])
        return planned

    def drafts(self, file: Path) -> "list[Draft]":
        """A plan for every recipe of a file, with what this host lacks to carry it out."""
        from pipeline.plan.planning import draft  # as above
        from recipes.load import load

        drafted = [draft(loaded, self.site) for loaded in load(file)]
        self._warn([one.loaded for one in drafted])
        return drafted

    def _warn(self, recipes: "list[Loaded]") -> None:
        """Prints each warning once, however many recipes share it."""
        from pipeline.plan.refusals import warnings  # with the plans

        texts = dict.fromkeys(text for loaded in recipes for text in warnings(loaded.recipe))
        for text in texts if not self.out.quiet else ():
            self.out.warn(text)
