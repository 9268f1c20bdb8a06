"""Checks of every column of the registry; pure.

A check returns the problem of a value, None where there is none. Databases do not check values for us: SQLite
stores any value in any column, and a JSON column holds any JSON.
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from artifacts.manifest import YEARS
from artifacts.registry import shapes
from artifacts.registry.policy import VERDICTS
from artifacts.registry.shapes import Unreadable, a_key, text_problem
from artifacts.version import BUILT, IMPORTED

Check = Callable[[Any], str | None]

MOST = 2**31 - 1
"""Largest integer of both databases."""

LONG = 1 << 20
"""Largest number of characters in a text column without a declared length: bundles, reasons, addresses."""


def anything(_: Any) -> str | None:
    """Accept every value."""
    return None


def _or_none(check: Check) -> Check:
    def checked(value: Any) -> str | None:
        return None if value is None else check(value)

    return checked


def _text(longest: int, least: int = 0) -> Check:
    def check(value: Any) -> str | None:
        problem = text_problem(value, longest)
        return "is empty" if problem is None and len(value) < least else problem

    # Names repeat in thousands of rows. `typed`, since 1 and True and 1.0 are equal keys.
    return lru_cache(maxsize=4096, typed=True)(check) if longest <= 1000 else check


def _one_of(*allowed: str) -> Check:
    def check(value: Any) -> str | None:
        if isinstance(value, str) and value in allowed:
            return None
        return f"is {shapes.brief(value)}; it is one of {', '.join(allowed)}"

    return check


def _moment(value: Any) -> str | None:
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return f"is {shapes.brief(value)}, not a time as ISO 8601 writes it"
    # A time without a zone cannot be compared with the others: TypeError.
    if moment.tzinfo is None:
        return f"is {shapes.brief(value)}, without a time zone"
    if moment.year not in YEARS:
        return f"is {shapes.brief(value)}, not of the years {YEARS[0]} to {YEARS[-1]}"
    return None


def _number(least: int) -> Check:
    def check(value: Any) -> str | None:
        # Not `isinstance`: True is an int.
        if type(value) is int and least <= value <= MOST:
            return None
        return f"is {shapes.brief(value)}, not a whole number from {least}"

    return check


def _finite(value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return None
    return f"is {shapes.brief(value)}, not a finite number"


def _json(shape: Callable[[Any], str | None]) -> Check:
    def check(value: Any) -> str | None:
        return str(value) if isinstance(value, Unreadable) else shape(value)

    return check


def _bundle(value: Any) -> str | None:
    return text_problem(value, LONG)


NAME, WHO, ID = _text(200, 1), _text(200), _text(64)

CHECKS: Mapping[str, Mapping[str, Check]] = {
    "schema_version": {"number": _number(1)},
    "series": {"name": NAME, "folded": NAME, "last": _number(0)},
    "store": {"id": ID, "url": _text(1000), "bound_at": _moment},
    "facts": {"id": a_key, "facts": _json(shapes.facts)},
    "version": {
        "name": NAME, "number": _number(1), "engine_key": a_key, "manifest_digest": _or_none(a_key),
        "model": _text(1000), "origin": _one_of(BUILT, IMPORTED), "identity": ID,
        "verdict": _one_of(*VERDICTS), "recipe": _json(shapes.recipe), "lineage": _json(shapes.lineage),
        "checks": _json(shapes.checks), "source": _json(shapes.source), "facts_id": a_key,
        "published_at": _moment, "published_by": WHO, "collected_at": _or_none(_moment),
    },
    "metric": {
        "name": NAME, "number": _number(1), "metric": _text(200, 1), "position": _number(0),
        "value": _finite, "low": _or_none(_finite), "high": _or_none(_finite),
    },
    "alias": {
        "name": NAME, "alias": _text(64, 1), "number": _number(1), "moved_at": _moment, "moved_by": WHO,
    },
    "policy": {"alias": _text(64, 1), "rules": _json(shapes.an_object), "set_at": _moment, "set_by": WHO},
    "waiver": {
        "id": _number(0), "name": NAME, "number": _number(1), "alias": _text(64, 1), "rule": _text(40, 1),
        "reason": _bundle, "granted_at": _moment, "granted_by": WHO, "until": _moment,
    },
    "signature": {
        "manifest_digest": a_key, "key_id": _text(64, 1), "bundle": _bundle, "signed_at": _moment,
        "signed_by": WHO,
    },
    "attestation": {
        "engine_key": a_key, "key_id": _text(64, 1), "bundle": _bundle, "signed_at": _moment,
        "signed_by": WHO,
    },
    "pulled": {"name": NAME, "number": _number(1), "last_at": _moment, "times": _number(0)},
    "subscription": {
        "id": _number(0), "way": _one_of("webhook", "command"), "target": _bundle,
        "secret": _or_none(_text(300)), "kinds": _json(shapes.texts), "names": _text(200),
        "after_seq": _number(0), "added_at": _moment, "added_by": WHO,
    },
    "delivery": {
        "subscription": _number(0), "seq": _number(0), "attempts": _number(0), "next_at": _or_none(_moment),
        "done_at": _or_none(_moment), "problem": _or_none(_bundle),
    },
    "event": {
        "seq": _number(1), "at": _moment, "name": _text(200), "kind": _text(40, 1), "by": WHO,
        "detail": _json(shapes.an_object),
    },
}  # fmt: skip
"""Table -> column -> its check. Seals are checked only by `verify --all`."""
