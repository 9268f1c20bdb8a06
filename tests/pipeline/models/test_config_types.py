"""The types of config.json's fields: the table is the pinned transformers', and AutoConfig refuses what we do."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape, readers
from pipeline.models.config_types import mistyped, table
from tests.pipeline.models import config_types
from tests.pipeline.models.config_witness import Recording, bare

pytestmark = pytest.mark.slow

WRONG: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    3,
    1.5,
    "x",
    "regression",
    [],
    [1],
    ["x"],
    [1.5],
    {},
    {"0": "x"},
    {"x": 1},
    {"0": []},
]


def test_the_table_is_that_of_the_installed_transformers():
    assert config_types.FILE.read_text() == config_types.text(), (
        "run python -m tests.pipeline.models.config_types"
    )


@pytest.mark.parametrize("architecture", readers())
def test_a_value_is_refused_where_transformers_refuses_it(architecture: str, tmp_path: Path):
    config, wrong = bare(architecture), []
    recording = Recording(config)
    read_shape(recording)
    for name in table()[config["model_type"]]:
        for value in WRONG:
            given = config | {name: value}
            theirs = raised(lambda given=given: loaded(given, tmp_path))
            ours = raised(lambda given=given: read_shape(given))
            if theirs and not isinstance(ours, SourceError):
                wrong.append(f"{name} {value!r}: not refused, there {theirs}")
            if ours and not theirs and (name not in recording.read or mistyped(config["model_type"], given)):
                wrong.append(f"{name} {value!r}: refused ({ours}), there it is read")
    assert not wrong, "\n".join(wrong)


def loaded(config, directory: Path):
    (directory / "config.json").write_text(json.dumps(config))
    return AutoConfig.from_pretrained(directory)


def raised(read) -> Exception | None:
    try:
        read()
    except Exception as exc:  # noqa: BLE001 transformers raises whatever it meets first
        return exc
    return None
