"""What several tests of the source step need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub as hubs
from tests.checkpoints import LEFT_BEHIND, checkpoint


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "staging" / "draft"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def hub() -> Iterator[hubs.Hub]:
    with hubs.serve(checkpoint() | LEFT_BEHIND) as server:
        yield server
