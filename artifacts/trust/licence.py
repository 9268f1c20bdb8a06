"""The licence of a source checkpoint: the id in its model card, and its licence texts."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from artifacts.manifest import Manifest

TEXT = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|USE_POLICY)([-_][\w-]+)?(\.(txt|md|rst))?", re.IGNORECASE)
"""Matches names of files with licence terms or notices."""

MAX_BYTES = 256 << 10
"""Longest licence text; longer files are named and left out."""

UNSTATED = "NOASSERTION"
"""SPDX identifier for an unstated licence."""

REFERENCE = "LicenseRef-"
"""Prefix of SPDX identifiers for licences that are not in the SPDX list."""

SPDX = {
    name.lower(): name
    for name in (
        "AFL-3.0", "AGPL-3.0", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
        "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0",
        "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0",
        "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "ECL-2.0", "EPL-1.0", "EPL-2.0",
        "EUPL-1.1", "EUPL-1.2", "GPL-2.0", "GPL-3.0", "ISC", "LGPL-2.1", "LGPL-3.0", "MIT", "MPL-2.0",
        "MS-PL", "MulanPSL-2.0", "NCSA", "ODbL-1.0", "OFL-1.1", "PostgreSQL", "Unlicense", "WTFPL", "Zlib",
    )
}  # fmt: skip
"""Lower-case name in model cards -> identifier in the SPDX list; https://spdx.org/licenses."""


class Licence(TypedDict):
    """The licence of a checkpoint, as registries store it."""

    id: str
    """SPDX identifier, `LicenseRef-...` for a licence that is not in the SPDX list, or NOASSERTION."""
    stated: str | None
    """The file that states it."""
    texts: dict[str, str]
    """File name -> text."""
    link: NotRequired[str]
    omitted: NotRequired[list[str]]
    """Names of files too long."""


class Card(TypedDict, total=False):
    """The fields of a model card's front matter that are read here; strangers write them, so of any type."""

    license: object
    license_name: object
    license_link: object


def licence_of(manifest: Manifest, file: Callable[[str], Path]) -> Licence:
    """The licence of an artifact of kind `source`, as from `licence_in`; reads only card and texts."""
    return _licence({name: record.size for name, record in manifest.files.items()}, file)


def licence_in(directory: Path) -> Licence:
    """The licence of the checkpoint in a directory."""
    sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir()) if path.is_file()}
    return _licence(sizes, lambda name: directory / name)


def _licence(sizes: Mapping[str, int], file: Callable[[str], Path]) -> Licence:
    card = _card(_text(file("README.md"))) if "README.md" in sizes else {}
    licence_id, link = _stated(card), card.get("license_link")
    paper_names = [name for name in sizes if TEXT.fullmatch(name)]
    omitted = [name for name in paper_names if sizes[name] > MAX_BYTES]
    licence: Licence = {
        "id": licence_id or UNSTATED,
        "stated": "README.md" if licence_id else None,
        "texts": {name: _text(file(name)) for name in paper_names if name not in omitted},
    }
    if isinstance(link, str):
        # Strangers write the card, so the length is bounded.
        licence["link"] = link[:500]
    if omitted:
        licence["omitted"] = omitted
    return licence


def _text(path: Path) -> str:
    """The beginning of a file as text without NUL, which PostgreSQL cannot store."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES).decode(errors="replace").replace("\0", "")


def texts_of(source: Mapping[str, Any]) -> dict[str, str]:
    """File name -> text of every licence in a version's `source`; those of drafts and heads get a prefix.

    Other file names are left out: a registry must not be able to write arbitrary files.
    """
    texts_by_name: dict[str, str] = {}
    for field, licence in source.items():
        match = re.fullmatch(r"(?:([a-z]{1,20})_)?licence", field)
        texts = licence.get("texts") if isinstance(licence, Mapping) else None
        if match is None or not isinstance(texts, Mapping):
            continue
        prefix = f"{match[1]}-" if match[1] else ""
        texts_by_name |= {
            f"{prefix}{name}": text
            for name, text in texts.items()
            # The pattern admits no slash and no leading dot: the name stays in its directory.
            if TEXT.fullmatch(name) and isinstance(text, str)
        }
    return texts_by_name


def _card(text: str) -> Card:
    """The front matter of a model card; empty where there is none, or it is not a YAML mapping."""
    import yaml  # only publishing reads cards; pulls must not pay for the import

    from recipes import yaml_text

    # The card may begin with a byte order mark and have Windows line ends.
    front = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    try:
        card = yaml_text.parse_card(front[1]) if front else {}
    except yaml.YAMLError:
        return {}
    return cast("Card", card) if isinstance(card, dict) else {}


def _stated(card: Card) -> str:
    """The SPDX expression for the card's licences; several licences are joined by OR."""
    license_field = card.get("license")
    licences = license_field if isinstance(license_field, list) else [license_field]
    identifiers = [
        _identifier(licence, card) for licence in licences if isinstance(licence, str) and licence.strip()
    ]
    # A dict keeps the card's order and drops repetitions; a set would change the text from run to run.
    return " OR ".join(dict.fromkeys(identifiers))


def _identifier(licence: str, card: Card) -> str:
    text = licence.strip().lower()
    if text in ("other", "unknown"):
        name = card.get("license_name")
        text = name.strip().lower() if isinstance(name, str) and name.strip() else text
    spdx = SPDX.get(text)
    return spdx or REFERENCE + re.sub(r"[^a-z0-9.-]+", "-", text)[:80].strip("-")
