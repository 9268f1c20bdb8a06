"""Licences as model cards state them, and the texts beside them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.store.local import LocalStore
from artifacts.trust.licence import MAX_BYTES, licence_in, licence_of, texts_of


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        ("---\nlicense: apache-2.0\n---\n# Model", "Apache-2.0"),
        ("---\r\nlicense: MIT\r\n---\r\n", "MIT"),
        ("\ufeff---\nlicense: mit\n---", "MIT"),
        ("---\nlicense: llama3.1\n---\n", "LicenseRef-llama3.1"),
        ("---\nlicense: other\nlicense_name: Qwen Research\n---\n", "LicenseRef-qwen-research"),
        ("---\nlicense: other\n---\n", "LicenseRef-other"),
        ("---\nlicense: [mit, apache-2.0, mit]\n---\n", "MIT OR Apache-2.0"),
        ("---\ntags: [x]\n---\n", "NOASSERTION"),
        ("---\nlicense: 3\n---\n", "NOASSERTION"),
        ("---\nlicense: [unclosed\n---\n", "NOASSERTION"),
        ("---\nlicense: 2026-13-45\n---\n", "LicenseRef-2026-13-45"),
        ("---\n- a list\n---\n", "NOASSERTION"),
        ("no front matter, license: mit", "NOASSERTION"),
        ("---\nlicense: ../../etc/passwd\n---\n", "LicenseRef-..-..-etc-passwd"),
    ],
)
def test_the_card_states_the_licence(tmp_path: Path, card: str, wanted: str):
    (tmp_path / "README.md").write_bytes(card.encode())
    found = licence_in(tmp_path)
    assert found["id"] == wanted
    assert found["stated"] == (None if wanted == "NOASSERTION" else "README.md")


def test_texts_are_carried_and_what_is_no_text_is_not(tmp_path: Path):
    (tmp_path / "LICENSE").write_text("Permission is granted")
    (tmp_path / "NOTICE.txt").write_bytes(b"caf\xe9")
    (tmp_path / "LICENSE-long").write_bytes(b"x" * (MAX_BYTES + 1))
    (tmp_path / "license.bin").write_text("x")
    (tmp_path / "LICENSES").mkdir()
    found = licence_in(tmp_path)
    assert found["texts"] == {"LICENSE": "Permission is granted", "NOTICE.txt": "caf\ufffd"}
    assert found["omitted"] == ["LICENSE-long"]


def test_texts_of_a_version_never_have_names_that_lead_elsewhere():
    texts = {"LICENSE": "a", "../LICENSE": "b", "LICENSE/x": "c", "manifest.json": "d", "NOTICE": 5}
    source = {"repo": "a/b", "licence": {"texts": texts}, "draft_licence": {"texts": {"LICENSE": "e"}},
              "../x_licence": {"texts": {"LICENSE.md": "f"}}, "heads_licence": "none", "b_licence": {"texts": []}}  # fmt: skip
    assert texts_of(source) == {"LICENSE": "a", "draft-LICENSE": "e"}


def test_only_the_papers_of_an_artifact_are_asked_for(store: LocalStore, put: Callable[..., None], key: str):
    put(
        key,
        {
            "README.md": b"---\nlicense: mit\n---",
            "LICENSE": b"MIT",
            "model.safetensors": b"x",
            "LICENSES/a": b"x",
        },
    )
    asked = []

    def file(name) -> Path:
        asked.append(name)
        return store.file(key, name)

    assert licence_of(store.manifest(key), file) == {
        "id": "MIT",
        "stated": "README.md",
        "texts": {"LICENSE": "MIT"},
    }
    assert sorted(asked) == ["LICENSE", "README.md"]
