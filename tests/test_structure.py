"""What the structure has reached stays: `python -m tests.structure` prints every figure and its goal."""

from functools import cache
from pathlib import Path

import pytest

from tests.commits import unpack_commit
from tests.structure.backends import EXEMPT, backend_comparisons
from tests.structure.figures import FIGURES
from tests.structure.tree import Checkout, read_checkout

ROOT = Path(__file__).resolve().parents[1]

LIMITS = {
    "rooms": 108, "loose_files": 88, "floors": 18, "room_circles": 2, "module_circles": 4, "shared_names": 66,
    "road": 12, "longest_road": 16, "reach": 55, "climbs": 5, "backends": 52,
    "mappings": 15.5, "params": 135, "names": 0.112, "comments": 1.1,
    "function_median": 12, "function_p90": 35, "function_max": 60, "annotated": 1.0,
}  # fmt: skip
"""Figure -> what it has reached: none gets worse; who improves one tightens its limit here."""


@cache
def checkout() -> Checkout:
    return read_checkout(ROOT)


@pytest.mark.parametrize("key", LIMITS)
def test_a_figure_stays_as_good_as_it_is(key):
    value = FIGURES[key].measure(checkout())
    text = f"{FIGURES[key].title}: {value}; python -m tests.structure --help says how to list the places"
    assert FIGURES[key].reaches(value, LIMITS[key]), text


@pytest.mark.parametrize("place", EXEMPT)
def test_every_exemption_is_needed(place):
    others = {name: reason for name, reason in EXEMPT.items() if name != place}
    assert len(backend_comparisons(checkout(), others)) > len(backend_comparisons(checkout()))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="sources without their history")
@pytest.mark.slow
def test_an_older_commit_is_a_checkout_too(tmp_path: Path):
    place = unpack_commit("HEAD", tmp_path / "commit")
    assert len(read_checkout(place).modules) > 100
    assert [file.name for file in tmp_path.iterdir()] == ["commit"]
