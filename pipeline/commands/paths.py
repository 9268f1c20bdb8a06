"""Paths on the command line: those that no file can have are refused before anything looks for them."""

from pathlib import Path
from typing import Any

import click

from recipes.regular import path_problem, shortened


class PathType(click.Path):
    """A path that a file can have, as a `pathlib.Path`."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or a usage error."""
        if problem := path_problem(str(value)):
            self.fail(f"{shortened(str(value))!r} {problem}", param, ctx)
        return super().convert(value, param, ctx)


PATH = PathType()
