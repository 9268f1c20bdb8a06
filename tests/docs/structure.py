"""Writes the figures of the code's structure, before and after, into their page: `python -m tests.docs.structure`."""

import re
from datetime import UTC, datetime
from pathlib import Path

from tests.docs.pages import ROOT, SITE
from tests.structure.__main__ import read_commit, table
from tests.structure.tree import read_checkout

PAGE = SITE / "structure.md"
START, END = "<!-- figures:start -->\n", "<!-- figures:end -->\n"
BEFORE = "0.1"


def write(page: Path = PAGE) -> None:
    """Puts today's table between the marks of the page."""
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    figures = table(read_commit(BEFORE), read_checkout(ROOT))
    today = f"Counted on {datetime.now(UTC):%Y-%m-%d}.\n"
    page.write_text(f"{before}{START}{today}\n{figures.strip()}\n{END}{after}")


def titles(page: Path = PAGE) -> list[str]:
    """First cells of the table, its head left out."""
    shown = page.read_text().partition(START)[2].partition(END)[0]
    return [title.strip() for title in re.findall(r"^\| ([^|]+)\|", shown, re.MULTILINE)][2:]


if __name__ == "__main__":
    write()
