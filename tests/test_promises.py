"""PROMISES.md names a test for whatever the documents and --help advertise, or says why it is not executed."""

import click
import pytest

from pipeline.cli.main import enginery
from tests.docs.pages import SITE, documents, first_cells, name_of, text_of
from tests.promises import HERE, PAGE, Row, advertised, functions, rows, words

ROWS = rows(PAGE.read_text())
COMMANDS = "Command line"
NOT_EXECUTED = "Not executed here"
SILENT = "Pages without a promise of their own"
PROMISING = [one for one in ROWS if one.section not in (NOT_EXECUTED, SILENT) and one.tests]
CALLS = [one for one in ROWS if one.section.startswith(f"{COMMANDS}: ")]


def tree() -> set[str]:
    return set(advertised(enginery, click.Context(enginery)))


def lacking(advertised_: set[str], page: list[Row]) -> tuple[set[str], set[str]]:
    """What is advertised without a row, and what has a row without being advertised."""
    listed = {name for one in page for name in one.names}
    return advertised_ - listed, listed - advertised_


def test_every_command_and_option_has_a_row_and_no_other_has():
    excused = [one for one in ROWS if one.section == NOT_EXECUTED and set(one.names) & tree()]
    assert lacking(tree(), CALLS + excused) == (set(), set())


def test_an_option_without_a_row_would_be_noticed():
    lost, _ = lacking(tree() | {"gc --new-option", "newcommand"}, CALLS)
    assert {"gc --new-option", "newcommand"} <= lost


@pytest.mark.slow
@pytest.mark.parametrize("row", PROMISING, ids=lambda row: row.cells[0])
def test_every_test_that_is_named_exists(row: Row):
    for test in row.tests:
        file, _, name = test.partition("::")
        assert (HERE / file).is_file(), test
        assert name in functions(HERE / file), test


def test_every_row_names_a_test_or_stands_among_the_not_executed():
    untested = [one.cells[0] for one in ROWS if not one.tests and one.section not in (NOT_EXECUTED, SILENT)]
    assert untested == []


@pytest.mark.slow
@pytest.mark.parametrize("row", CALLS, ids=lambda row: row.cells[0])
def test_a_test_of_an_option_gives_it(row: Row):
    """The test, with its fixtures and helpers, holds the words of the command and of the option."""
    for name in row.names:
        *command, last = name.removeprefix("enginery ").split()
        needed = [{one} for one in command] + [spellings(name) if last.startswith("-") else {last}]
        held = [words(HERE / test.partition("::")[0], test.partition("::")[2]) for test in row.tests]
        assert any(all(any(word in one for word in each) for each in needed) for one in held), (
            name,
            row.tests,
        )


def test_a_test_of_something_else_does_not_count():
    held = words(HERE / "pipeline" / "cli" / "test_gc.py", "test_by_default_what_is_young_stays")
    assert {"gc", "--yes"} <= held
    assert {"--also", "--drop-lineage", "promote"} & held == set()


def spellings(name: str) -> set[str]:
    """How an option can be written."""
    *path, option = name.removeprefix("enginery ").split()
    command: click.Command = enginery
    for part in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(enginery), part)
        assert found is not None
        command = found
    return next(set(one.opts) for one in command.params if option in one.opts)


def pages_of(section: str) -> set[str]:
    """Pages that a section of PROMISES.md is about."""
    names = section.removeprefix("Pages: ").split(", ") if section.startswith("Pages: ") else []
    return {name for name in names if name.endswith(".md")}


def test_every_page_is_covered():
    pages = {name_of(page).removeprefix("docs/") for page in documents()} - {"CONTRIBUTING.md", "SECURITY.md"}
    covered = {name for one in ROWS for name in pages_of(one.section)}
    silent = {name for one in ROWS if one.section == SILENT for name in one.names}
    assert covered & silent == set()
    assert covered | silent == pages


@pytest.mark.parametrize("name", ["formats.md", "calibration.md", "engines.md"])
def test_every_name_in_a_table_of_these_pages_has_a_row(name: str):
    told = first_cells(text_of(SITE / name))
    listed = {name_ for one in ROWS if name in pages_of(one.section) for name_ in one.names}
    assert told
    assert told - listed == set()
