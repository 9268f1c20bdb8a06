"""Cron expressions and IANA time zones: what Prefect can read, and when it fires, told without Prefect."""

import difflib
import re
import zoneinfo
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

FIELDS = (
    ("minute", "0 to 59"), ("hour", "0 to 23"), ("day", "1 to 31"), ("month", "1 to 12 or jan to dec"),
    ("weekday", "0 to 7 or sun to sat"), ("second", "0 to 59"), ("year", "1970 to 2099"),
)  # fmt: skip
"""Fields in their order, each with its values; most expressions have the first five."""

WORDS = frozenset((
    "sun", "mon", "tue", "wed", "thu", "fri", "sat", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug",
    "sep", "oct", "nov", "dec", "l",
))  # fmt: skip
"""Letters that have a meaning; `L` is the last. croniter also reads random (R) and hashed (H) values and the
nearest working day (W): Prefect refuses them, or draws other times each time it plans."""

EXAMPLE = "minute hour day month weekday, e.g. `0 3 * * *` for 3 o'clock every night"


def known_cron(text: str) -> str:
    """The expression; a ValueError that names the field where Prefect cannot read it, or it never fires."""
    fields = text.split()
    if not (len(fields) == 1 and text.strip().startswith("@")) and not 5 <= len(fields) <= len(FIELDS):
        raise ValueError(f"{text!r} has {len(fields)} fields, a cron expression has 5: {EXAMPLE}")
    wrong = [told for index in range(len(fields)) if (told := _problem(fields, index))]
    if wrong or not _readable(text):
        raise ValueError(f"{text!r} cannot be read: {', '.join(wrong) or EXAMPLE}")
    if fires_after(text, "UTC", datetime.now(UTC)) is None:
        raise ValueError(f"{text!r} never fires: no such day comes; choose another day or month")
    return text


def fires_after(cron: str, timezone: str, moment: datetime) -> datetime | None:
    """The first time after `moment` that the expression fires, in its time zone; None if it never does."""
    from croniter import CroniterBadDateError, croniter  # as in _readable

    try:
        found: datetime = croniter(cron, moment.astimezone(ZoneInfo(timezone))).get_next(datetime)
    except CroniterBadDateError:
        return None
    return found


def known_timezone(zone: str) -> str:
    """The name; a ValueError with the nearest names there are where it is none."""
    names = zoneinfo.available_timezones()
    if zone in names:
        return zone
    by_sound = {name.rpartition("/")[2].lower(): name for name in sorted(names)}
    by_sound |= {name.lower(): name for name in names}
    near = difflib.get_close_matches(zone.lower(), by_sound, n=1)
    hint = f"did you mean {by_sound[near[0]]!r}?" if near else "e.g. 'UTC' or 'Europe/Berlin'"
    raise ValueError(f"{zone!r} is no IANA time zone; {hint}")


def _problem(fields: list[str], index: int) -> str | None:
    """What is wrong with one field, were all others `*`."""
    if fields[index].startswith("@"):
        return None
    alone = ["*"] * len(fields)
    alone[index] = fields[index]
    name, values = FIELDS[index]
    return None if _readable(" ".join(alone)) else f"{name} {fields[index]!r} is not {values}"


def _readable(text: str) -> bool:
    from croniter import croniter  # 30 ms that only recipes with a schedule pay

    alias = text.strip().startswith("@")
    return croniter.is_valid(text) and (alias or set(re.findall("[a-z]+", text.lower())) <= WORDS)
