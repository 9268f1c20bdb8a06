"""A few rounds of the campaign of kills; `python -m tests.kills --rounds 200` is the whole."""

import random
from pathlib import Path

import pytest

from tests.kills import CHANGES, Campaign
from tests.test_recovery import undisturbed

__all__ = ["undisturbed"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_anywhere_leaves_nothing_half_written(undisturbed, tmp_path: Path):
    recipe, keys, expected = undisturbed
    seed = random.randrange(1 << 32)
    print("moments drawn with seed", seed)  # shown when the test fails
    campaign = Campaign(
        recipe=recipe, keys=keys, expected=expected, longest_s=20, changes=CHANGES, rng=random.Random(seed)
    )
    campaign.go(4, tmp_path)
    assert sum(campaign.struck.values()) >= 4
    assert campaign.builds >= 1
