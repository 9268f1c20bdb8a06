"""Console sessions of the documents, typed in as they stand: the commands print what the pages show.

`make docs` writes what they print today into the pages.
"""

import os
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.docs.conftest import BUILT, PLACES, MakePlace
from tests.docs.pages import ROOT, Command, Session, documents, name_of, sessions
from tests.docs.play import Place, differs, play, renewed
from tests.promises import HERE, functions

REFRESH = "ENGINERY_REFRESH_DOCS"
"""Variable of the environment that has pages written instead of compared."""

SESSIONS = [session for page in documents() for session in sessions(page)]


def by_place(*, built: bool) -> list[Any]:
    """The sessions of a page that share a place, as one test: later ones go on where earlier ones ended."""

    def order(session: Session) -> tuple[str, str]:
        return name_of(session.page), session.place or ""

    runnable = sorted((one for one in SESSIONS if one.place and (one.place == BUILT) == built), key=order)
    groups = [(":".join(key), list(group)) for key, group in groupby(runnable, order)]
    return [pytest.param(group, id=name) for name, group in groups]


@pytest.mark.slow
@pytest.mark.parametrize("group", by_place(built=False))
def test_a_session_prints_what_its_page_shows(group: list[Session], place: MakePlace):
    compare(group, place(str(group[0].place)))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", by_place(built=True))
def test_a_session_in_a_built_store_prints_what_its_page_shows(
    group: list[Session], place: MakePlace, built: tuple[Path, Any]
):
    root, _ = built
    compare(group, place(BUILT, root))


def compare(group: list[Session], at: Place) -> None:
    """Runs the sessions and compares or writes what they print."""
    problems, blocks = play(group, at)
    if REFRESH in os.environ:
        write(group, blocks)
    else:
        assert problems == [], "run `make docs`:\n" + "\n\n".join(problems)


def write(group: list[Session], blocks: list[list[str]]) -> None:
    """Puts the new lines in the place of the old ones."""
    page = group[0].page
    text = page.read_text()
    now = {session.note + str(session.commands[0].typed): session for session in sessions(page)}
    for session, lines in reversed(list(zip(group, blocks, strict=True))):
        here = now[session.note + str(session.commands[0].typed)]
        text = text[: here.start] + "\n".join(lines) + "\n" + text[here.end :]
    page.write_text(text)


def test_every_place_that_a_session_names_exists():
    assert {session.place for session in SESSIONS if session.place} <= PLACES.keys()


@pytest.mark.parametrize(
    "session",
    [session for session in SESSIONS if session.reason],
    ids=lambda session: session.commands[0].line[:40],
)
def test_a_session_that_is_not_run_says_why_and_which_test_runs_its_like(session: Session):
    named = re.findall(r"([\w/.-]+\.py)::(\w+)", str(session.reason))
    assert named or "CI" in str(session.reason), session.reason
    for file, name in named:
        assert name in functions(HERE / file), f"{file}::{name}"


def test_a_page_with_a_block_that_says_nothing_is_refused(tmp_path: Path):
    page = Path(tmp_path / "page.md")
    page.write_text("```console\n$ enginery ls\n```\n")
    with pytest.raises(ValueError, match=r"page\.md: '\$ enginery ls' has the note None"):
        list(sessions(page))


PRINTED = ["a 1 2.5 s", "b 03fe2b19fb7d", "c", "d of 3", "e"]


@pytest.mark.parametrize(
    "shown",
    [
        ["a 1 9.9 s", "b 0123456789ab", "c", "d of 3", "e"],
        ["a 1 9.9 s", "...", "d of 3", "e"],
        ["...", "c", "..."],
        ["a 1...", "...", "d...", "..."],
    ],
)
def test_what_varies_and_what_is_cut_is_no_difference(shown: list[str]):
    assert differs(tuple(shown), PRINTED, figures_vary=False) is None


@pytest.mark.parametrize(
    ("shown", "first"),
    [
        (["a 2 2.5 s", "..."], "a 2 2.5 s"),
        (["a 1 2.5 s", "c", "..."], "a 1 2.5 s"),
        (["...", "c", "e"], "c"),
        (["a 1 2.5 s", "b KEY", "c", "d of 3"], "(nothing"),
        (["b KEY", "..."], "b KEY"),
        ([], "(nothing"),
    ],
)
def test_a_wrong_number_a_missing_line_and_an_end_are_differences(shown: list[str], first: str):
    assert (differs(tuple(shown), PRINTED, figures_vary=False) or "").startswith(first)


def test_the_lines_after_the_last_cut_are_the_last_lines():
    assert differs(("...", "c"), ["c", "d", "c"], figures_vary=False) is None
    assert differs(("...", "c"), ["c", "d"], figures_vary=False) == "c"


def test_numbers_vary_only_where_the_block_says_so():
    assert differs(("a 7 2.5 s", "..."), PRINTED, figures_vary=True) is None


def test_a_refreshed_session_is_cut_where_it_was():
    command = Command(("$ x",), ("a 2 2.5 s", "...", "d of 4", "..."))
    assert renewed(command, PRINTED) == ["a 1 2.5 s", "...", "d of 3", "..."]
    middle = Command(("$ x",), ("...", "c", "..."))
    assert renewed(middle, PRINTED) == ["...", "c", "..."]
    ends = Command(("$ x",), ("a...", "...", "d 9", "e"))
    assert renewed(ends, [*PRINTED[:4], "", PRINTED[4]]) == ["a...", "...", "d of 3", "", "e"]
    assert renewed(Command(("$ x",), ("a 1 2.5 s",)), PRINTED) == PRINTED


def test_the_documents_have_sessions():
    assert len([session for session in SESSIONS if session.place]) > 10
    assert (ROOT / "docs" / "quickstart.md") in {session.page for session in SESSIONS}
