"""Cron expressions and IANA time zones: validates them as Prefect reads them, without importing Prefect."""

import re
from datetime import UTC, datetime

from recipes.regular import shortened

FIELDS = (
    ("minute", "0 to 59", 0, 59), ("hour", "0 to 23", 0, 23), ("day", "1 to 31", 1, 31),
    ("month", "1 to 12 or jan to dec", 1, 12), ("weekday", "0 to 7 or sun to sat", 0, 7),
)  # fmt: skip
"""Fields in order: name, values in words, lowest and highest. croniter also reads seconds and years, refused
here: a run each second floods the server, and no build takes less than a minute."""

PART = re.compile(r"(\*|\d+)(?:-(\d+))?(?:/(\d+))?")
"""One part of a field: `*` or a number, optionally a range and a step."""

NO_ZONES = frozenset(("localtime", "Factory"))
"""Entries of the time zone database that are not zones: the host's own zone, and its placeholder."""

WORDS = frozenset((
    "sun", "mon", "tue", "wed", "thu", "fri", "sat", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug",
    "sep", "oct", "nov", "dec", "l",
))  # fmt: skip
"""Accepted words; `L` is the last day. croniter also reads random (R) and hashed (H) values and the nearest
working day (W): Prefect refuses them, or schedules other times on each run."""

EXAMPLE = "minute hour day month weekday, e.g. `0 3 * * *` for 3 o'clock every night"


def check_cron(text: str) -> str:
    """The expression; ValueError, with the wrong field, where Prefect cannot read it or it never fires."""
    fields = text.split()
    if not (len(fields) == 1 and text.strip().startswith("@")) and len(fields) != len(FIELDS):
        count = f"{shortened(text)!r} has {len(fields)} fields, a cron expression has 5"
        raise ValueError(f"{count}, without seconds and years: {EXAMPLE}")
    problems = [problem for index in range(len(fields)) if (problem := _problem(fields, index))]
    if problems or not _readable(text):
        raise ValueError(f"{shortened(text)!r} cannot be read: {', '.join(problems) or EXAMPLE}")
    # E.g. `0 0 30 2 *`, which is well-formed.
    if fires_after(text, "UTC", datetime.now(UTC)) is None:
        raise ValueError(
            f"{shortened(text)!r} never fires: there is no such date; choose another day or month"
        )
    return text


def fires_after(cron: str, timezone: str, moment: datetime) -> datetime | None:
    """The first time after `moment` that the expression fires, in its time zone; None if it never does."""
    from zoneinfo import ZoneInfo  # as in _readable

    from croniter import CroniterBadDateError, croniter

    try:
        next_time: datetime = croniter(cron, moment.astimezone(ZoneInfo(timezone))).get_next(datetime)
    except CroniterBadDateError:
        return None
    return next_time


def check_timezone(zone: str) -> str:
    """The name; ValueError, with a similar name, for an unknown time zone."""
    import difflib  # as in _readable
    import zoneinfo

    names = zoneinfo.available_timezones() - NO_ZONES
    if zone in names:
        return zone
    by_sound = {name.rpartition("/")[2].lower(): name for name in sorted(names)}
    # Last, so that a whole name counts more than a city's alone.
    by_sound |= {name.lower(): name for name in names}
    close = difflib.get_close_matches(shortened(zone).lower(), by_sound, n=1)
    hint = f"did you mean {by_sound[close[0]]!r}?" if close else "e.g. 'UTC' or 'Europe/Berlin'"
    raise ValueError(f"{shortened(zone)!r} is not an IANA time zone; {hint}")


def _problem(fields: list[str], index: int) -> str | None:
    """The problem of one field, checked with `*` in all others; None if there is none."""
    if fields[index].startswith("@"):
        return None
    alone = ["*"] * len(fields)
    # One field at a time, because croniter names none in its errors.
    alone[index] = fields[index]
    name, values, low, high = FIELDS[index]
    if not fields[index].isascii() or not _readable(" ".join(alone)):
        return f"{name} {shortened(fields[index])!r} is not {values}"
    problems = (_backwards_or_once(part, low, high) for part in fields[index].split(","))
    return next((f"{name} {problem}" for problem in problems if problem), None)


def _backwards_or_once(part: str, low: int, high: int) -> str | None:
    """The problem of a range or step that croniter accepts but that cannot be intended."""
    match = PART.fullmatch(part)
    if match is None:
        return None
    begin, last, step = match.groups()
    first = low if begin == "*" else int(begin)
    end = int(last) if last else high
    if last and end < first:
        return f"{part!r} goes backwards; write the ranges as a list, e.g. {first}-{high},{low}-{end}"
    if step and int(step) > end - first:
        return f"{part!r} has a step beyond its values, so it is {first} only; write {first}"
    return None


def _readable(text: str) -> bool:
    from croniter import croniter  # 30 ms that only recipes with a schedule pay

    alias = text.strip().startswith("@")
    return croniter.is_valid(text) and (alias or set(re.findall("[a-z]+", text.lower())) <= WORDS)
