"""docs/faults.md names a test that exists for each attack and fault."""

import pytest

from tests.promises import HERE, Row, functions, rows

pytestmark = pytest.mark.slow

PAGE = HERE.parent / "docs" / "faults.md"
ROWS = [row for row in rows(PAGE.read_text()) if len(row.cells) == 3 and row.cells[0] != "attack or fault"]


def test_the_page_has_the_rows_that_this_looks_at():
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.cells[0])
def test_every_fault_names_tests_that_exist(row: Row):
    named = [name.strip("`") for name in row.cells[2].split("<br>")]
    assert named
    for test in named:
        file, _, function = test.partition("::")
        assert (HERE / file).is_file(), test
        assert not function or function in functions(HERE / file), test
