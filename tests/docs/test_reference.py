"""The generated reference pages are those of today, and what they are made from is complete."""

import pytest

from artifacts.registry.telling import SAID
from pipeline.errors import EXIT_CODES
from tests.docs import pictures, reference
from tests.docs.events import EVENTS
from tests.docs.pages import GENERATED


@pytest.mark.parametrize("name", reference.pages())
def test_a_generated_page_is_of_today(name):
    assert (GENERATED / name).read_text() == reference.pages()[name], "run `make docs`"


@pytest.mark.parametrize("name", ["flow.svg", "rooms.svg"])
def test_a_picture_is_of_today(name):
    assert (pictures.IMAGES / name).read_text() == pictures.pictures()[name], "run `make docs`"


def test_every_kind_of_event_is_described_and_its_example_is_told_in_words():
    assert EVENTS.keys() == SAID.keys()
    assert "{" not in "".join(row for row in reference.events().splitlines() if row.startswith("| `"))


def test_every_error_and_every_code_is_listed():
    page = reference.exit_codes()
    assert all(f"`{error.__name__}`" in page for error in EXIT_CODES)
    assert set(EXIT_CODES.values()) <= reference.CODES.keys()


def test_reading_the_python_api_imports_no_torch(run_python):
    code = "import sys; from tests.docs import reference; reference.python(); print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"
