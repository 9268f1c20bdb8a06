"""Documents that were changed by chance: a value for an odd one, a part gone, twice or nested, bytes flipped."""

import copy
import random
from collections.abc import Iterator
from typing import Any

import yaml

from tests.odd import VALUES

HEADS = (
    f"%YAML {'9' * 5000}.1\n---\n", f"%YAML 1.{'9' * 5000}\n---\n", "%YAML 2.0\n---\n", "%YAML 1\n---\n", "%YAML x.y\n---\n",
    "%YAML 1.1\n%YAML 1.1\n---\n", "%TAG ! %ff\n---\n", "%TAG !e! !\n%TAG !e! !\n---\n", "%TAG\n---\n", "%NO x\n---\n", "%\n", "\ufeff", "...\n", "---\n---\n",
)  # fmt: skip
"""What may stand before a document."""

MARK = "MARK-MARK"
"""Stands in a dumped document where raw YAML is put in."""

BYTES = (
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xe2\x80\xae",
    b"\x1b[2J",
    b"\n",
    b"\t",
    b":",
    b"- ",
    b"{",
    b"[",
    b"&a ",
    b"*a",
    b"!!",
    b"<<: ",
    b"'",
    b'"',
    b"#",
    b"%",
    b"---\n",
    b"\r",
)


def mutant(document: Any, rng: random.Random) -> bytes:
    """The document as YAML with one to three changes."""
    changed, raw = copy.deepcopy(document), []
    for _ in range(rng.choice((1, 1, 2, 3))):
        raw += _change(changed, rng)
    text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    for value in raw:
        text = text.replace(MARK, value, 1)
    if rng.random() < 0.03:
        text = rng.choice(HEADS) + text
    data = text.encode(errors="surrogatepass")
    return _flipped(data, rng) if rng.random() < 0.25 else data


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Any file with some of its bytes changed, gone, or there twice."""
    return _flipped(data, rng)


def _change(document: Any, rng: random.Random) -> list[str]:
    """Changes the document in one place; the raw YAML that belongs where it left a mark."""
    places = list(_places(document))
    if not places:
        return []
    parent, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del parent[key]
        case 1:
            parent[key] = {"a": parent[key]} if rng.random() < 0.5 else [parent[key]]
        case 2 if isinstance(parent, dict):
            parent[f"{key}{rng.choice(('s', '[1]', '.x', ' ', ''))}x"] = parent[key]
        case 3:
            other, at = rng.choice(places)
            parent[key] = copy.deepcopy(other[at])
        case 4 if isinstance(parent[key], int | float):
            parent[key] = rng.choice((0, -1, 2**31, 2**53, 2**64, 10**309, 1e-300, 1e300, 0.1, -0.5, 10**6))
        case _:
            parent[key] = MARK
            return [rng.choice(VALUES)]
    return []


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document, as a container and a key of it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list) and value[key]:
            yield from _places(value[key])


def _flipped(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.randrange(1, 40)
    match rng.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[at + length :]
        case 2:
            return data[:at] + data[at : at + length] * rng.choice((2, 50)) + data[at + length :]
        case _:
            return data[:at] + rng.choice(BYTES) + data[at:]
