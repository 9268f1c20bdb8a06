"""Fingerprints that detect equal rows; standard library only."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

from calibration.data.report_values import Duplicates

BLOCK = 1 << 16
"""Characters hashed at once: the words of a long text as strings would take twenty times its size."""

SPACE = re.compile("[ \t\n]+")

EXAMPLES = 5
"""Pairs of duplicates that a report shows."""


def fingerprint(text: str) -> str:
    """128 bits of the sha256 of a text, in hexadecimal."""
    hasher = hashlib.sha256()
    for start in range(0, len(text), BLOCK):
        hasher.update(text[start : start + BLOCK].encode())
    return hasher.hexdigest()[:32]


def loose_fingerprint(text: str) -> str:
    """The same, ignoring case, white space and Unicode normalization."""
    hasher, between = hashlib.sha256(), ""
    for block in _blocks(text):
        if words := unicodedata.normalize("NFKC", block).casefold().split():
            hasher.update(f"{between}{' '.join(words)}".encode())
            between = " "
    return hasher.hexdigest()[:32]


def _blocks(text: str) -> Iterator[str]:
    """Yield the text in pieces that end with white space, across which no Unicode normalization reaches."""
    start = 0
    while start < len(text):
        # Combining characters and case rules reach over letters, never over these three characters.
        space = SPACE.search(text, start + BLOCK)
        end = space.end() if space else len(text)
        yield text[start:end]
        start = end


def duplicates(places: Sequence[str], fingerprints: Sequence[str]) -> Duplicates:
    """Number of samples that repeat an earlier one, and the first few pairs."""
    first: dict[str, str] = {}
    pairs = []
    for place, fingerprint_ in zip(places, fingerprints, strict=True):
        earlier = first.setdefault(fingerprint_, place)
        # By identity: two rows may have the same place, in files of one name.
        if earlier is not place:
            pairs.append([place, earlier])
    return {"count": len(pairs), "examples": pairs[:EXAMPLES]}
