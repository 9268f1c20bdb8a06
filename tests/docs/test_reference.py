"""The generated reference pages are those of today, and what they are made from is complete."""

import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from artifacts.errors import PolicyRefused
from artifacts.registry.policy import parse_policy
from artifacts.registry.registry import open_registry
from artifacts.registry.telling import DESCRIBERS
from artifacts.registry.waivers import Request
from pipeline.errors import EXIT_CODES
from pipeline.run import announce
from tests.docs import pictures, reference, structure
from tests.docs.events import EVENTS
from tests.docs.pages import GENERATED
from tests.pipeline.published import publication
from tests.structure.figures import FIGURES


@pytest.mark.parametrize("name", reference.pages())
def test_a_generated_page_is_of_today(name: str):
    assert (GENERATED / name).read_text() == reference.pages()[name], "run `make docs`"


@pytest.mark.parametrize("name", ["flow.svg", "rooms.svg"])
def test_a_picture_is_of_today(name: str):
    assert (pictures.IMAGES / name).read_text() == pictures.pictures()[name], "run `make docs`"


def test_the_page_of_structure_has_every_figure():
    assert structure.titles() == [figure.title for figure in FIGURES.values()], (
        "run `python -m tests.docs.structure`"
    )


def test_every_kind_of_event_is_described_and_its_example_is_told_in_words():
    assert EVENTS.keys() == DESCRIBERS.keys()
    assert "{" not in "".join(row for row in reference.events().splitlines() if row.startswith("| `"))


def test_the_details_of_recorded_events_have_the_fields_that_the_page_lists(tmp_path: Path):
    registry = open_registry(tmp_path / "registry.db")
    name = "demo/int4_awq_tp2"
    for seed in (1, 2):
        registry.publish(publication(name, seed=seed, alias="candidate"))
    registry.promote(name, "prod", to=2, expect=None)
    registry.set_policy("prod", parse_policy({"max_age_days": 30, "metrics": {"kl": {"max": 0.015}}}))
    with pytest.raises(PolicyRefused):
        registry.promote(name, "prod", to=1, expect=2)
    until = datetime.now(UTC) + timedelta(days=7)
    asked = Request(name=name, number=1, alias="prod", rule="metrics", reason="pilot", until=until)
    waiver = registry.waive(asked)
    registry.promote(name, "prod", to=1, expect=2)
    registry.rollback(name, "prod")
    registry.end_waiver(waiver.id)
    registry.rebuild_needed(name, 2, ["driver"])
    recorded = registry.events()
    assert EVENTS.keys() - {event.kind for event in recorded} == {"signed", "collected"}
    for event in recorded:
        _, detail, optional = EVENTS[event.kind]
        assert detail.keys() <= event.detail.keys() <= {*detail, *optional}, event


def test_the_variables_of_a_command_are_those_that_it_gets():
    named = set(re.findall(r"ENGINERY_EVENT\w*", reference.events()))
    given = set(re.findall(r"ENGINERY_EVENT\w*", inspect.getsource(announce)))
    assert named == given


def test_every_error_and_every_code_is_listed():
    page = reference.exit_codes()
    assert all(f"`{error.__name__}`" in page for error in EXIT_CODES)
    assert set(EXIT_CODES.values()) <= reference.CODES.keys()


@pytest.mark.slow
def test_reading_the_python_api_imports_no_torch(run_python: Callable[[str], str]):
    code = "import sys; from tests.docs import reference; reference.python(); print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"
