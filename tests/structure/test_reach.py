"""The reach of a function grows with each module that its calls lead to, also through protocols."""

import pytest

from tests.structure.reach import reach
from tests.structure.road import RoadNotFound
from tests.structure.tree import Checkout, Module

BACKEND = """
from typing import Protocol

class Backend(Protocol):
    def reasons(self) -> list[str]: ...
    def notes(self) -> list[str]: ...
"""
CHECKS = "from pipeline.facts import gather\n\ndef refusals(path: str) -> None:\n    gather(path)\n"
FACTS = "def gather(path: str) -> None: ...\n"


def checkout(**texts: str) -> Checkout:
    every = {"checks": CHECKS, "facts": FACTS} | texts
    return Checkout(tuple(Module(f"pipeline/{name}.py", text) for name, text in every.items()))


def test_modules_that_are_called_count_and_others_do_not():
    assert reach(checkout(unused="def other() -> None: ...\n")).modules == (
        "pipeline.checks",
        "pipeline.facts",
    )
    assert reach(checkout()).climbs == ()


def test_a_protocols_method_reaches_the_classes_that_have_all_its_methods():
    facts = "from pipeline.backend import Backend\n\ndef gather(backend: Backend) -> None:\n    backend.reasons()\n"
    whole = "import pipeline.checks\n\nclass Whole:\n    def reasons(self) -> None: ...\n    def notes(self) -> None: ...\n"
    half = "class Half:\n    def reasons(self) -> None: ...\n"
    reached = reach(checkout(facts=facts, backend=BACKEND, whole=whole, half=half))
    assert reached.modules == ("pipeline.backend", "pipeline.checks", "pipeline.facts", "pipeline.whole")
    assert reached.climbs == (("pipeline.facts", "pipeline.whole"),)


def test_there_must_be_one_function_of_the_name():
    with pytest.raises(RoadNotFound, match="refusals: one function of this name is needed, 2 are there"):
        reach(checkout(facts=FACTS + CHECKS))
