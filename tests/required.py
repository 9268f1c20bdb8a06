"""Programs that some tests need: without them they are skipped, or fail where all of them must run, as in CI."""

import os
from typing import NoReturn

import pytest

REQUIRE = "ENGINERY_REQUIRE_PROGRAMS"
"""Set to 1 where nothing may be skipped for want of a program."""


def missing(what: str) -> NoReturn:
    """Skips the test that asks, saying what this machine lacks; fails it where the environment says so."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE} is set and this test cannot run: {what}")
    pytest.skip(what)
