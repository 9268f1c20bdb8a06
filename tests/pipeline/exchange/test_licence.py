"""Licences on their way: from a card into a version, from a version into a card."""

from pathlib import Path
from typing import Any

import pytest

from artifacts.trust.licence import licence_in
from pipeline.exchange.model_card import licence
from pipeline.exchange.pushed_content import licence_id


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("license: mit", "MIT"),
        ("license: [mit]", "MIT"),
        ("license: [mit, apache-2.0, mit]", "MIT OR Apache-2.0"),
        ("license: other\nlicense_name: llama3.1", "LicenseRef-llama3.1"),
        ("license: other", "LicenseRef-other"),
        ("license: {name: mit}", None),
        ("license: []", None),
        ("license: 7", None),
        ("tags: [x]", None),
    ],
)
def test_what_a_card_states_is_one_expression_or_nothing(tmp_path: Path, said: str, known: str | None):
    (tmp_path / "README.md").write_text(f"---\n{said}\n---\n# A model\n")
    assert licence_id(licence_in(tmp_path)) == known


@pytest.mark.parametrize(
    ("said", "known"),
    [("mit", "mit"), (["mit"], "mit"), (["a", "b"], "a OR b"), ({"id": ["a"]}, "a"), ({}, None), (None, None),
     ("", None), ("NOASSERTION", None), ({"id": "NOASSERTION", "texts": {}}, None), (7, None)],
)  # fmt: skip
def test_a_licence_is_understood_however_it_was_registered(said, known: str | None):
    assert licence_id(said) == known


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("MIT OR Apache-2.0", {"license": ["mit", "apache-2.0"]}),
        ("LicenseRef-llama3.1", {"license": "other", "license_name": "llama3.1"}),
        ("LicenseRef-other", {"license": "other"}),
        (None, {}),
    ],
)
def test_a_card_says_it_as_hubs_index_it(known: str | None, said: dict[str, Any]):
    assert licence(known) == said
