"""Rules for names of versions and aliases: safe in paths, URLs, shells and terminals."""

import re
from collections.abc import Iterable

from artifacts.errors import NameRefused

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
LONGEST_NAME, LONGEST_ALIAS = 200, 64


def check_name(name: str) -> None:
    """Raise a NameRefused unless the name is allowed in recipes: parts of [A-Za-z0-9._-] between slashes."""
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise NameRefused(
            f"name {name[: LONGEST_NAME + 1]!r} is not allowed; use at most {LONGEST_NAME} letters, digits, "
            "'.', '_', '-' and '/', every part beginning with a letter or digit"
        )


def check_alias(alias: str) -> None:
    """Raise a NameRefused for an alias that is not allowed after NAME@."""
    if len(alias) > LONGEST_ALIAS or not ALIAS.fullmatch(alias):
        raise NameRefused(
            f"alias {alias[: LONGEST_ALIAS + 1]!r} is not allowed; use at most {LONGEST_ALIAS} letters, "
            "digits, '.', '_' and '-', beginning with a letter"
        )


def check_apart(kind: str, new: str, existing: Iterable[str]) -> None:
    """Raise a NameRefused if a new name differs from an existing one only by case.

    People and case-insensitive file systems confuse such names.
    """
    for name in existing:
        if name != new and name.casefold() == new.casefold():
            raise NameRefused(f"{kind} {new!r} differs from {name!r} only by case; use one of them")
