"""Where generated text ends, by the model's own word."""

import json
from pathlib import Path

import pytest

from pipeline.models.generation_config import FILE, ends


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({}, None),
        ({"eos_token_id": None}, None),
        ({"eos_token_id": 2}, [2]),
        ({"eos_token_id": [2, 7]}, [2, 7]),
    ],
)
def test_the_end_of_text_is_a_token_or_several(tmp_path: Path, said, tokens: list[int] | None):
    (tmp_path / FILE).write_text(json.dumps(said))
    assert ends(tmp_path) == tokens


def test_a_model_without_the_file_says_nothing(tmp_path: Path):
    assert ends(tmp_path) is None
