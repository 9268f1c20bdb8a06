"""Cron expressions and time zones: ours and Prefect's reading are the same, and mistakes are told with their place."""

import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.schemas.schedules import CronSchedule

from recipes.cron import check_cron, check_timezone, fires_after
from recipes.errors import RecipeError
from recipes.load import load
from tests.callables import Cli
from tests.cases import lay_out

GOOD = (
    "* * * * *", "0 3 * * *", "*/5 * * * *", "0 3 * * mon-sun", "0 22-23,0-3 * * *", "0 3 * * MON,wed", "0 0 1 jan *",
    "0 0 L * *", "0 0 * * L5", "0 0 * * 5#2", "0 0 29 2 *", "15 2,14 1-15/2 */3 1-5", " 0 3 * * * ", "0 3 ? * mon",
    "@daily", "@hourly", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", "0 0 * * fri-mon", "*/59 * * * *",
)  # fmt: skip

BAD = (
    "", "every night", "0 25 * * *", "60 * * * *", "0 3 0 * *", "0 3 32 * *", "0 3 * 13 *", "0 3 * * 8",
    "0 3 * foo *", "*/0 * * * *", "* * * *", "* * * * * * * *", "0 0 * * 5#6", "0 3 * * * # night", "@reboot",
    "@nightly", "H * * * *", "R * * * *", "0 0 15W * *", "-1 * * * *", "1, * * * *",
)  # fmt: skip

STRICTER = (
    "R(1-5) * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "* * * * * *", "* * * * * 30", "0 0 1 1 * 0 2030",
    "5-1 * * * *", "0 22-3 * * *", "0 0 * * 5-1", "*/60 * * * *", "*/61 * * * *", "0 */24 * * *", "5/70 * * * *",
    "0 0 1-31/40 * *", "0 0 * */12 *", "\N{ARABIC-INDIC DIGIT THREE} * * * *",
)  # fmt: skip
"""Prefect takes them, and draws other times at each round, never comes to one, floods itself with runs, or fires
at other times than whoever wrote it may mean."""

NO_ZONES = ("localtime", "Factory")
"""Prefect takes them: the worker's own time zone, whatever it is, and that of a host without one."""


def refused(read, text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("text", [*GOOD, *BAD])
def test_prefect_and_we_read_the_same_expressions(text):
    assert refused(check_cron, text) == refused(lambda cron: CronSchedule(cron=cron), text) == (text in BAD)


@pytest.mark.parametrize("text", STRICTER)
def test_what_prefect_takes_and_never_runs_when_meant_is_refused(text: str):
    assert not refused(lambda cron: CronSchedule(cron=cron), text)
    assert refused(check_cron, text)


@pytest.mark.slow
def test_prefect_and_we_know_the_same_time_zones():
    for zone in (
        *zoneinfo.available_timezones(),
        "Europe/Berlinn",
        "europe/berlin",
        "Mars",
        "posix/UTC",
        "UTC+1",
    ):
        theirs = refused(lambda name: CronSchedule(cron="* * * * *", timezone=name), zone)
        assert refused(check_timezone, zone) == (theirs or zone in NO_ZONES), zone


@pytest.mark.parametrize("zone", NO_ZONES)
def test_a_name_that_is_no_place_is_no_time_zone(zone):
    assert refused(check_timezone, zone)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 25 * * *", "'0 25 * * *' cannot be read: hour '25' is not 0 to 23"),
        (
            "0 25 * 0 x",
            "hour '25' is not 0 to 23, month '0' is not 1 to 12 or jan to dec, weekday 'x' is not",
        ),
        ("every night", "has 2 fields, a cron expression has 5, without seconds and years: minute hour day"),
        ("* * * * * *", "has 6 fields, a cron expression has 5, without seconds and years: minute hour day"),
        (
            "5-1 22-3 * * *",
            "minute '5-1' goes backwards; write the ranges as a list, e.g. 5-59,0-1, hour '22-3'",
        ),
        ("1,*/61 * * * *", "minute '*/61' has a step beyond its values, so it is 0 only; write 0"),
        ("@nightly", "'@nightly' cannot be read: minute hour day month weekday, e.g."),
        ("0 0 30 2 *", "'0 0 30 2 *' never fires: there is no such date"),
    ],
)
def test_a_wrong_expression_is_told_by_its_field(text: str, told: str):
    with pytest.raises(ValueError, match=re.escape(told)):
        check_cron(text)


@pytest.mark.parametrize(
    ("zone", "near"),
    [
        ("Europe/Berlinn", "Europe/Berlin"),
        ("berlin", "Europe/Berlin"),
        ("US/pacific", "US/Pacific"),
        ("utc", "UTC"),
    ],
)
def test_a_wrong_time_zone_is_told_the_nearest(zone: str, near: str):
    with pytest.raises(ValueError, match=f"is not an IANA time zone; did you mean '{near}'"):
        check_timezone(zone)


@pytest.mark.parametrize("read", [check_cron, check_timezone])
def test_a_long_text_is_told_in_short(read):
    with pytest.raises(ValueError, match=r"x{50,60}\.\.\.' ") as caught:
        read("x" * 5000)
    assert len(str(caught.value)) < 250


def test_the_next_time_is_that_of_the_zone():
    moment = datetime(2026, 11, 30, 12, tzinfo=UTC)
    first = fires_after("0 3 * * *", "Asia/Kathmandu", moment)
    assert first is not None
    assert first - moment == timedelta(hours=9, minutes=15)
    assert fires_after("0 0 30 2 *", "UTC", moment) is None


def test_both_mistakes_of_a_recipe_are_told_with_line_and_field(tmp_path: Path):
    file = lay_out("schedule-typo", tmp_path)
    with pytest.raises(RecipeError) as caught:
        load(file)
    assert str(caught.value).splitlines() == [
        f"{file}: 2 problems",
        "  6:12: schedule.cron: '0 25 * * *' cannot be read: hour '25' is not 0 to 23",
        "  6:32: schedule.timezone: 'Europe/Berlinn' is not an IANA time zone; did you mean 'Europe/Berlin'?",
    ]


@pytest.mark.parametrize("command", ["check", "plan", "run", "submit"])
def test_every_command_that_reads_a_recipe_refuses_it(cli: Cli, tmp_path: Path, command: str):
    done = cli("--store", tmp_path / "store", command, lay_out("schedule-typo", tmp_path / "case"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "6:12: schedule.cron: " in done.stderr
    assert "6:32: schedule.timezone: " in done.stderr


def test_a_wrong_schedule_of_stale_is_a_usage_error(cli: Cli, tmp_path: Path):
    done = cli(
        "--store", tmp_path, "registry", "stale", "--schedule", "0 25 * * *", "--server", "http://127.0.0.1:1"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "Invalid value for '--schedule': '0 25 * * *' cannot be read: hour '25' is not 0 to 23" in done.stderr
    )
