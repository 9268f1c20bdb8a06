"""Parameters of commands: their types, and the refusal of those that a call would not use."""

import math
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from recipes.regular import path_problem, shortened

MOST, MOST_DAYS = 10**9, 36_500
"""Bounds of numbers: larger ones fit neither the registry's columns nor the calendar."""


class PathType(click.Path):
    """A path that a file can have, as a `pathlib.Path`."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or a usage error."""
        if problem := path_problem(str(value)):
            self.fail(f"{shortened(str(value))!r} {problem}", param, ctx)
        return super().convert(value, param, ctx)


class AddressType(click.ParamType[str]):
    """The address of a server, `http://HOST[:PORT][/PATH]`."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address, or a usage error."""
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or not value.isprintable() or " " in value:
            self.fail(f"{shortened(value)!r} is not an address; give http://HOST:PORT", param, ctx)
        return str(value)


class Finite(click.FloatRange):
    """A number within bounds; `nan` is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a usage error."""
        if not math.isfinite(number := super().convert(value, param, ctx)):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


PATH, ADDRESS = PathType(), AddressType()
COUNT, ORDINAL = click.IntRange(1, MOST), click.IntRange(0, MOST)
DAYS, SECONDS = Finite(0, MOST), Finite(0.1, MOST)


def refuse_unused(why: str, *names: str) -> None:
    """Raises click's UsageError if the command that runs was given one of these parameters.

    `names` are parameters as the command's function has them; `why` follows "has no effect".
    """
    ctx = click.get_current_context()
    unused = [
        parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.human_readable_name
        for parameter in ctx.command.params
        if parameter.name in names and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if unused:
        have = "has" if len(unused) == 1 else "have"
        raise click.UsageError(f"{' and '.join(unused)} {have} no effect {why}")
