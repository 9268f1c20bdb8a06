"""Every exporter writes what it wrote before, for each version point."""

from pathlib import Path

import pytest

from tests.pipeline.export.golden_files import CASES, GOLDEN, exported, stored


@pytest.mark.parametrize("case", CASES)
def test_an_export_is_the_golden_one(case: str, tmp_path: Path):
    assert exported(case, tmp_path) == stored(case), "run python -m tests.pipeline.export.golden_files"


def test_no_golden_file_is_left_without_a_case():
    written = {path.parent for path in GOLDEN.rglob("README.md")} - {GOLDEN}
    assert written == {GOLDEN / case for case in CASES}
