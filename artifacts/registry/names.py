"""Which names versions and aliases may have: safe in paths, URLs, shells and terminals."""

import re
from collections.abc import Iterable

from artifacts.errors import NameRefused

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
LONGEST_NAME, LONGEST_ALIAS = 200, 64


def check_name(name: str) -> None:
    """Refuses what recipes refuse: a name is parts of letters, digits, `.`, `_` and `-`, between slashes."""
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise NameRefused(
            f"name {name[: LONGEST_NAME + 1]!r} is not allowed; use at most {LONGEST_NAME} letters, digits, "
            "'.', '_', '-' and '/', every part beginning with a letter or digit"
        )


def check_alias(alias: str) -> None:
    """Refuses an alias that could not be written after NAME@."""
    if len(alias) > LONGEST_ALIAS or not ALIAS.fullmatch(alias):
        raise NameRefused(
            f"alias {alias[: LONGEST_ALIAS + 1]!r} is not allowed; use at most {LONGEST_ALIAS} letters, "
            "digits, '.', '_' and '-', beginning with a letter"
        )


def check_apart(kind: str, new: str, existing: Iterable[str]) -> None:
    """Refuses a new name that differs from a known one only by case: people and file systems mix them up."""
    for name in existing:
        if name != new and name.casefold() == new.casefold():
            raise NameRefused(f"{kind} {new!r} differs from {name!r} only by case; use one of them")
