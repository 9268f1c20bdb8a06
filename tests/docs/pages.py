"""The documents as data: the README and the pages of the site, their console blocks, tables and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "docs"
GENERATED = SITE / "reference"

BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```console\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE
)
NOTE = re.compile(
    r"(?:run: (?P<place>[\w-]+)(?:, exit (?P<code>\d+))?(?P<loose>, figures vary)?|not run: (?P<why>.+))"
)


def documents() -> list[Path]:
    """The README and every page of the site, generated ones included."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(SITE.rglob("*.md"))]


def name_of(page: Path) -> str:
    """A page by its path below the root."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


@dataclass(frozen=True)
class Command:
    """A command of a console session and the lines that the page shows below it."""

    typed: tuple[str, ...]
    """Its lines as they stand, the prompt included."""
    shown: tuple[str, ...]

    @property
    def line(self) -> str:
        """On one line, without prompt and remark."""
        joined = " ".join(line.removesuffix("\\").strip() for line in self.typed).removeprefix("$ ")
        return re.sub(r"\s+#.*$", "", re.sub(r"\s+", " ", joined))


@dataclass(frozen=True)
class Session:
    """A console block: where it runs, or why it does not, and its commands."""

    page: Path
    start: int
    """Offset of the block's body in the page's text."""
    end: int
    note: str
    place: str | None
    """Name of the fixture that it runs in; None: it is not run."""
    exit_code: int | None
    """The code that every command ends with; None: 0, or any other where an error is shown."""
    figures_vary: bool
    """Whether numbers are those of one run: measured accuracy and speed."""
    reason: str | None
    """Why it is not run, and which test runs something like it."""
    commands: tuple[Command, ...] = field(default=())


def sessions(page: Path) -> Iterator[Session]:
    """Every console block of a page, in order. A block without a note that can be read is a ValueError."""
    for block in BLOCK.finditer(page.read_text()):
        note = NOTE.fullmatch(block["note"] or "")
        if note is None:
            raise ValueError(
                f"{name_of(page)}: {block['body'].splitlines()[0]!r} has the note {block['note']!r}; write "
                "<!-- run: PLACE[, exit N][, figures vary] --> or <!-- not run: REASON --> above the block"
            )
        yield Session(
            page=page,
            start=block.start("body"),
            end=block.end("body"),
            note=block["note"],
            place=note["place"],
            exit_code=int(note["code"]) if note["code"] else None,
            figures_vary=bool(note["loose"]),
            reason=note["why"],
            commands=tuple(_commands(block["body"])),
        )


def _commands(body: str) -> Iterator[Command]:
    typed: list[str] = []
    shown: list[str] = []
    continued = False
    for line in body.splitlines():
        if continued:
            typed.append(line)
        elif line.startswith("$ "):
            if typed:
                yield Command(tuple(typed), tuple(shown))
            typed, shown = [line], []
        else:
            shown.append(line)
        continued = line.endswith("\\") and not shown
    if typed:
        yield Command(tuple(typed), tuple(shown))


def text_of(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> list[str]:
    """Headings of second and third rank."""
    return re.findall(r"^##+ (.*)$", text_of(page), re.MULTILINE)


def section(page: Path, heading: str) -> str:
    """The text below a heading of any rank, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text_of(page), re.DOTALL | re.MULTILINE)
    assert found, f"{name_of(page)} has no heading {heading!r}"
    return found[1]


def first_cells(text: str) -> set[str]:
    """Every name in backticks in the first cells of tables, their heads left out."""
    text = re.sub(r"^.*\n(?=\| ---)", "", text, flags=re.MULTILINE)
    cells = re.findall(r"^\| (`[^|]*)\|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
