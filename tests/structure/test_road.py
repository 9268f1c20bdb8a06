"""The road is as long as the calls on it: each forwarding layer adds one."""

import pytest

from tests.structure.road import RoadNotFound, roads, touches_tensor
from tests.structure.tree import Checkout, Module

FILES = {
    "pipeline/cli.py": """
import click
from pipeline.work import start

@click.command()
def run(path: str) -> None:
    start(path)
""",
    "pipeline/work.py": """
from pipeline import process

def start(path: str) -> None:
    process.run(path)
""",
    "pipeline/process.py": "def run(path: str) -> None: ...\n",
    "pipeline/child.py": "MAKERS = {'quantize': 'calibration.quantize:build'}\n\ndef main() -> None: ...\n",
    "calibration/quantize.py": """
import torch

def build(path: str) -> None:
    torch.set_num_threads(1)
    torch.empty(1)
""",
}
PATH = (
    "pipeline.cli.run", "pipeline.work.start", "pipeline.process.run", "pipeline.child.main",
    "calibration.quantize.build", "torch.empty",
)  # fmt: skip


def checkout(**files: str) -> Checkout:
    """The tree, with some modules' text replaced: `work`, `quantize` and `source`."""
    paths = {
        "work": "pipeline/work.py",
        "quantize": "calibration/quantize.py",
        "source": "calibration/source.py",
    }
    every = FILES | {paths[name]: text for name, text in files.items()}
    return Checkout(tuple(Module(path, text) for path, text in every.items()))


def calls(**files: str) -> int:
    (road,) = roads(checkout(**files))
    return road.calls


def test_the_boundary_is_one_call_and_the_touch_is_one():
    (road,) = roads(checkout())
    assert (road.maker, road.path, road.calls) == ("calibration.quantize.build", PATH, 5)


@pytest.mark.parametrize(
    "text",
    [
        "from pipeline import process\ndef start(path: str) -> None:\n    forward(path)\n\ndef forward(path: str) -> None:\n    process.run(path)\n",
        "from pipeline.process import run as go\nclass Site:\n    def go(self) -> None:\n        go()\n\ndef start(path: str) -> None:\n    Site().go()\n",
        "from pipeline import process\nclass Site:\n    def __init__(self) -> None:\n        process.run()\n\ndef start(path: str) -> None:\n    Site()\n",
        "import pipeline.process\nclass Site:\n    @property\n    def value(self) -> int:\n        pipeline.process.run()\n\ndef start(site: Site) -> None:\n    site.value\n",
        "from pipeline import process\ndef start(path: str) -> None:\n    (lambda: process.run(path))()\n",
        "from pipeline import process\ndef start(path: str) -> None:\n    def inner() -> None:\n        process.run(path)\n    inner()\n",
        "from functools import partial\nfrom pipeline import process\ndef start(path: str) -> None:\n    begin = partial(forward, path)\n    begin()\ndef forward(path: str) -> None:\n    process.run(path)\n",
    ],
    ids=["function", "method", "constructor", "property", "lambda", "inner", "partial"],
)  # fmt: skip
def test_a_forwarding_layer_adds_one(text: str):
    assert calls(work=text) == 6


def test_a_function_that_is_passed_on_is_called_where_it_is_called():
    text = """
from pipeline import process

def start(path: str) -> None:
    outer(lambda: process.run(path))

def outer(make) -> None:
    inner(make=make)

def inner(make) -> None:
    make()
"""
    assert calls(work=text) == 5 + 3  # outer, inner and the lambda stand between


def test_a_shortcut_shortens_the_road():
    layered = FILES["pipeline/work.py"].replace("process.run", "forward")
    layered += "\ndef forward(path: str) -> None:\n    process.run(path)\n"
    assert calls(work=layered) == 6
    assert calls(work=layered.replace("    forward(path)", "    forward(path)\n    process.run(path)")) == 5


def test_methods_are_found_by_annotation_base_class_and_return_type():
    source = """
import safetensors
from dataclasses import dataclass

class Base:
    def read(self) -> None:
        safetensors.safe_open("file")

@dataclass
class Source(Base):
    root: str

    @classmethod
    def open(cls, root: str) -> "Source":
        return cls(root)

@dataclass
class Holder:
    source: Source
"""
    direct = (
        "from calibration.source import Source\ndef build(path: str) -> None:\n    Source.open(path).read()\n"
    )
    typed = "from calibration.source import Source\ndef build(source: 'Source | None') -> None:\n    source.read()\n"
    field = "from calibration.source import Holder\ndef build(holder: Holder) -> None:\n    held = holder.source\n    held.read()\n"
    block = "from calibration.source import Source\ndef build(path: str) -> None:\n    with Source.open(path) as it:\n        it.read()\n"
    for text in (direct, typed, field, block):
        assert calls(source=source, quantize=text) == 6


def test_makers_that_touch_nothing_have_no_road():
    with pytest.raises(RoadNotFound, match="no address `module:function` names a function that touches"):
        roads(checkout(quantize="def build(path: str) -> None: ...\n"))


def test_settings_of_torch_touch_no_tensor():
    assert touches_tensor("torch.empty")
    assert touches_tensor("safetensors.safe_open")
    assert not touches_tensor("torch.cuda.is_available")
    assert not touches_tensor("torch.set_num_threads")
    assert not touches_tensor("pipeline.torch.empty")


def test_a_road_that_ends_before_the_door_is_an_error():
    with pytest.raises(
        RoadNotFound, match=r"no calls lead from pipeline\.cli\.run to pipeline\.process\.run"
    ):
        roads(checkout(work="def start(path: str) -> None: ...\n"))


def test_an_end_that_is_not_there_is_an_error():
    modules = [module for module in checkout().modules if module.path != "pipeline/child.py"]
    with pytest.raises(RoadNotFound, match=r"child\.main: one is needed, 0 are there"):
        roads(Checkout(tuple(modules)))
