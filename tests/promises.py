"""Reads PROMISES.md, and what tests name: which advertised function each test executes."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).resolve().parent
PAGE = HERE / "PROMISES.md"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: its heading, its cells."""

    section: str
    cells: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """What the first cell names."""
        return re.findall(r"`([^`]+)`", self.cells[0])

    @property
    def tests(self) -> list[str]:
        """`file::test` of the cell before the last."""
        return re.findall(r"`([^`]+::[^`]+)`", self.cells[-2]) if len(self.cells) > 2 else []


def rows(text: str) -> list[Row]:
    """Every row of every table, below the heading of second or third rank that it stands under."""
    found, section = [], ""
    for line in text.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("| ") and not line.startswith(("| ---", "| advertised")):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found.append(Row(section, tuple(cell.strip().replace("\\|", "|") for cell in cells)))
    return found


def advertised(command: click.Command, ctx: click.Context, path: str = "") -> Iterator[str]:
    """Commands and options of a click tree, each in full: `gc`, `gc --also`; `enginery --store` for the first."""
    if path:
        yield path
    for one in command.params:
        if isinstance(one, click.Option):
            yield f"{path or 'enginery'} {longest(one)}"
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from advertised(inner, ctx, f"{path} {name}".strip())


def longest(option: click.Option) -> str:
    """The spelling of an option that a person reads first."""
    return max(option.opts, key=len)


@cache
def module(file: Path) -> ast.Module:
    """A test file, read as data."""
    return ast.parse(file.read_text())


@cache
def functions(file: Path) -> dict[str, ast.stmt]:
    """What a file defines at its first level, by name."""
    found: dict[str, ast.stmt] = {}
    for node in module(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return found


@cache
def imported(file: Path) -> dict[str, tuple[Path, str]]:
    """Names that a file takes from other files of the tests."""
    found: dict[Any, Any] = {}
    for node in module(file).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            place = HERE.parent / f"{(node.module or '').replace('.', '/')}.py"
            found |= {one.asname or one.name: (place, one.name) for one in node.names if place.is_file()}
    return found


@cache
def words(file: Path, name: str) -> set[str]:
    """Words of every string that a test, its fixtures and its helpers hold."""
    found: set[str] = set()
    seen: set[tuple[Path, str]] = set()
    open_ = [(file, name)]
    while open_:
        place = open_.pop()
        if place in seen:
            continue
        seen.add(place)
        node = functions(place[0]).get(place[1])
        open_ += elsewhere(*place) if node is None else [(place[0], one) for one in named(node)]
        found |= held(node) if node is not None else set()
    return found


@cache
def named(node: ast.stmt) -> list[str]:
    """Every name and every argument in a definition: helpers, and fixtures."""
    parts = list(ast.walk(node))
    return [one.id for one in parts if isinstance(one, ast.Name)] + [
        one.arg for one in parts if isinstance(one, ast.arg)
    ]


@cache
def held(node: ast.stmt) -> set[str]:
    """The words of every string in a definition."""
    texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
    return {word for text in texts if isinstance(text, str) for word in text.split()}


def elsewhere(file: Path, name: str) -> list[tuple[Path, str]]:
    """Where a name that a file does not define may come from: an import, a fixture of a conftest."""
    there = [imported(file)[name]] if name in imported(file) else []
    return there + [(one, name) for one in conftests(file) if name in functions(one)]


def conftests(file: Path) -> list[Path]:
    """Files with fixtures that a file's tests may ask for."""
    return [
        one / "conftest.py"
        for one in file.parents
        if one.is_relative_to(HERE) and (one / "conftest.py").is_file()
    ]
