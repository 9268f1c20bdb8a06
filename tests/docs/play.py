"""Plays console sessions of the documents: runs their commands, compares what is shown, writes what is new."""

import contextlib
import io
import os
import re
import shlex
import subprocess  # noqa: TID251 sessions are typed into a shell
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from artifacts.actor import whoami
from pipeline.cli.boundary import report
from pipeline.cli.main import enginery
from pipeline.errors import EXIT_CODES
from tests.docs.pages import Command, Session

CUT = "..."
"""A line that stands for any number of lines; at the end of a line, for the rest of it."""

ANY_NUMBER = re.compile(r"\d[\d.,]*(?:e-?\d+)?")

VARIES = (
    (re.compile(r"objects/\w\w/"), "objects/"),
    (re.compile(r"\b[0-9a-f]{12,64}\b(?:\.\.\.)?"), "KEY"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: ?UTC|Z|\+00:00)?"), "MOMENT"),
    (re.compile(r"\b\d[\d.,]* ?(?:ms|s|min|h)\b"), "DURATION"),
    (re.compile(r"peak [\d.,]+ [kMG]?B"), "peak SIZE"),
    (re.compile(r"this host has [\d.,]+ GB"), "this host has SIZE"),
)
"""What another run or another host prints otherwise."""


@dataclass
class Place:
    """Where sessions of a page run: a directory, and variables of the environment."""

    directory: Path
    environment: dict[str, str | None] = field(default_factory=dict)
    code: int = 0
    """Exit code of the last command."""
    elsewhere: tuple[Path, ...] = ()
    """Other directories that the commands print; pages show all as `/srv/demo`."""

    def run(self, line: str) -> list[str]:
        """Runs a command; returns the lines that it prints on stdout and stderr, as a terminal shows them."""
        words = shlex.split(line)
        if line == "echo $?":
            printed, self.code = str(self.code), 0
        elif words[0] == "export":
            self.environment |= dict([words[1].split("=", 1)])
            printed, self.code = "", 0
        else:
            with contextlib.chdir(self.directory), environment(self.environment):
                printed = self._enginery(words[1:]) if words[0] == "enginery" else self._shell(line)
        for directory in (self.directory, *self.elsewhere):
            printed = printed.replace(str(directory.resolve()), "/srv/demo")
        printed = printed.replace(whoami(), "you@host")
        return [line.rstrip() for line in printed.splitlines()]

    def _enginery(self, words: list[str]) -> str:
        both = io.StringIO()
        with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both):
            self.code = 0
            try:
                enginery.main(words, prog_name="enginery", standalone_mode=False)
            except click.ClickException as exc:
                exc.show(both)
                self.code = 2
            except tuple(EXIT_CODES) as exc:
                self.code = report(exc)
        return both.getvalue()

    def _shell(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        self.code = done.returncode
        return done.stdout


@contextlib.contextmanager
def environment(changes: dict[str, str | None]) -> Iterator[None]:
    """The environment with some variables changed; None takes one away."""
    before = dict(os.environ)
    try:
        os.environ.update({name: value for name, value in changes.items() if value is not None})
        for name in [name for name, value in changes.items() if value is None]:
            os.environ.pop(name, None)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def words_of(line: str, *, figures_vary: bool) -> list[str]:
    """The words of a line without what varies between runs."""
    for pattern, name in VARIES:
        line = pattern.sub(name, line)
    return (ANY_NUMBER.sub("#", line) if figures_vary else line).split()


def differs(shown: tuple[str, ...], printed: list[str], *, figures_vary: bool) -> str | None:
    """The first shown line that is not printed where it should be; None where the page is right.

    Lines between two cuts follow each other directly, the first ones come first, and what is printed after
    the last shown line needs a cut. Empty lines do not count.
    """
    actual = [words for line in printed if (words := words_of(line, figures_vary=figures_vary))]
    chunks = split(shown)
    at = 0
    for number, chunk in enumerate(chunks):
        places = range(at, at + 1 if number == 0 else len(actual) + 1)
        if chunk and number == len(chunks) - 1 > 0:  # nothing is cut after it: it stands at the end
            places = range(max(at, len(actual) - len(chunk)), len(actual) + 1)
        place = next((n for n in places if _stands(chunk, actual, n, figures_vary=figures_vary)), None)
        if place is None:
            return chunk[0] if chunk else CUT
        at = place + len(chunk)
    if at < len(actual) and (chunks[-1] or len(chunks) == 1):
        return f"(nothing, where the command prints {' '.join(actual[at])!r})"
    return None


def _stands(chunk: list[str], actual: list[list[str]], at: int, *, figures_vary: bool) -> bool:
    """Whether the lines of a chunk are those printed from a line on."""
    if at + len(chunk) > len(actual):
        return False
    for line, words in zip(chunk, actual[at:], strict=False):
        begun = line.endswith(CUT) and not line.endswith(f" {CUT}{CUT}")
        wanted = words_of(line.removesuffix(CUT) if begun else line, figures_vary=figures_vary)
        if begun and not " ".join(words).startswith(" ".join(wanted)):
            return False
        if not begun and words != wanted:
            return False
    return True


def split(shown: tuple[str, ...]) -> list[list[str]]:
    """The shown lines between cuts; an empty chunk at an end that is cut."""
    chunks: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == CUT:
            chunks.append([])
        elif line.strip():
            chunks[-1].append(line)
    return chunks


def renewed(command: Command, printed: list[str]) -> list[str]:
    """What the page shows from now on: as printed, cut where it was.

    A chunk between cuts keeps its number of lines, empty ones not counted, from the line on that begins with
    the same word. A line that was cut stays where it is still the beginning of what is printed.
    """
    lines: list[str] = []
    at = 0
    for number, chunk in enumerate(split(command.shown)):
        if number:
            lines.append(CUT)
        if not chunk:
            continue
        first = chunk[0].removesuffix(CUT).split()[:1]
        starts = (
            [0] if number == 0 else [n for n in range(at, len(printed)) if printed[n].split()[:1] == first]
        )
        if not starts:
            return printed
        at = starts[0]
        for shown in chunk:
            while at < len(printed) and not printed[at]:
                lines.append(printed[at])
                at += 1
            if at < len(printed):
                lines.append(shown if _is_beginning(shown, printed[at]) else printed[at])
                at += 1
    return lines if CUT in lines else printed


def _is_beginning(shown: str, line: str) -> bool:
    """Whether a line that is cut at its end is how another one begins."""
    return shown.endswith(CUT) and line.startswith(shown.removesuffix(CUT))


def play(group: list[Session], place: Place) -> tuple[list[str], list[list[str]]]:
    """Runs the sessions of a page that share a place, one after another.

    Returns every difference in words, and the lines that each block should have: as they stand where all
    are right, else all as printed now, so that keys and dates of one run stand together.
    """
    problems: list[str] = []
    printed: list[list[list[str]]] = []
    for session in group:
        printed.append([])
        for command in session.commands:
            lines = place.run(command.line)
            printed[-1].append(lines)
            wrong = differs(command.shown, lines, figures_vary=session.figures_vary)
            said = "\n".join(lines)
            if wrong is not None:
                problems.append(f"{command.line}\nthe page shows: {wrong}\nthe command prints:\n{said}")
            if not _as_expected(session, command, place.code):
                problems.append(f"{command.line}\nends with {place.code}\n{said}")
    return problems, [_block(session, lines, problems) for session, lines in zip(group, printed, strict=True)]


def _block(session: Session, printed: list[list[str]], problems: list[str]) -> list[str]:
    """The lines of a session's block from now on."""
    block: list[str] = []
    for command, lines in zip(session.commands, printed, strict=True):
        block += [*command.typed, *(renewed(command, lines) if problems else command.shown)]
    return block


def _as_expected(session: Session, command: Command, code: int) -> bool:
    if command.line.startswith(("echo ", "export ")):
        return True
    if session.exit_code is not None:
        return code == session.exit_code
    return (code != 0) == any(line.startswith("error:") for line in command.shown)
