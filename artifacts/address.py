"""Addresses of artifacts in a store: a key, or one of several contents of a key. Pure.

Builds on GPUs are rarely bit-identical, so that one key may have several contents. `KEY` means any of them,
`KEY.DIGEST` the one whose manifest has that digest.
"""

import re

_ADDRESS = re.compile(r"([0-9a-f]{64})(?:\.([0-9a-f]{64}))?")


def address(key: str, content: str | None) -> str:
    """`KEY.DIGEST`; `KEY` where the digest is not known."""
    return key if content is None else f"{key}.{content}"


def is_address(text: str) -> bool:
    """Whether it is a key or one content of a key."""
    return _ADDRESS.fullmatch(text) is not None


def parse_address(text: str) -> tuple[str, str | None]:
    """Key and digest; anything else is a ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f"key {text!r} is not 64 hexadecimal digits, alone or before a dot and 64 others")
    return match[1], match[2]


def key_of(text: str) -> str:
    """The key in an address."""
    return text.partition(".")[0]


def is_same(first: str | None, second: str | None) -> bool:
    """Whether two digests of manifests may be of one content; an unknown one may be of any."""
    return first == second or None in (first, second)
