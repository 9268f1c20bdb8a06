"""Promotions, refusals, waivers and rollbacks as the command line tells them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from artifacts.registry.registry import Metric, Publication, Registry, open_registry
from tests.callables import Ask

SCHEMAS = Path(__file__).resolve().parents[2] / "artifacts" / "schemas"


@pytest.fixture
def published(tmp_path: Path) -> Registry:
    """Three versions of demo/fp8, the third with more divergence than the others."""
    registry = open_registry(tmp_path / "store" / "registry.db")
    for n in (1, 2, 3):
        registry.publish(
            Publication(
                name="demo/fp8",
                engine_key=f"{n:064x}",
                recipe={"n": n},
                verdict="PASS",
                facts={"format": "fp8"},
                metrics=[Metric("kl", 0.01 if n < 3 else 0.03)],
            )
        )
    return registry


def test_a_refused_promotion_says_why_and_what_to_do_and_ends_with_3(ask: Ask, published: Registry):
    assert ask("promote", "demo/fp8:1", "prod") == (0, "demo/fp8@prod is version 1\n", "")
    code, out, _ = ask("registry", "policy", "prod", "--metric", "kl<=0.02", "--max-age-days", "30")
    assert code == 0
    assert [line.split(maxsplit=2)[1:] for line in out.splitlines()[1:]] == [
        ["verdict", "PASS".ljust(10)],
        ["max_age_days", "30".ljust(10)],
        ["metrics", "kl <= 0.02"],
    ]
    for dry in ([], ["--dry-run"]):
        code, out, err = ask("promote", "demo/fp8:3", "prod", *dry)
        assert (code, out) == (3, "")
        assert "demo/fp8@prod stays at version 1: version 3 violates its policy" in err
        assert "metrics: kl is 0.03, more than 0.02" in err
        assert (
            "hint: fix the version, or waive the rule: enginery registry waive demo/fp8:3 prod metrics" in err
        )
    refusals = [event for event in published.events("demo/fp8") if event.kind == "refused"]
    assert len(refusals) == 1  # a dry run is no attempt
    assert ask("promote", "demo/fp8:2", "prod", "--dry-run")[1] == "demo/fp8@prod may be version 2 (was 1)\n"
    assert published.aliases("demo/fp8") == {"prod": 1}


def test_a_waiver_is_shown_wherever_its_version_is(ask: Ask, published: Registry):
    ask("promote", "demo/fp8:1", "prod")
    ask("registry", "policy", "prod", "--metric", "kl<=0.02")
    waive = (
        "registry",
        "waive",
        "demo/fp8:3",
        "prod",
        "metrics",
        "--reason",
        "agreed with evaluation",
        "--for",
        "7d",
    )
    code, out, _ = ask(*waive)
    assert (code, out.startswith("waiver 1: demo/fp8:3 metrics waived for @prod until 2")) == (0, True)
    for command in (
        ("promote", "demo/fp8:3", "prod"),
        (
            "registry",
            "aliases",
        ),
        (
            "registry",
            "waive",
        ),
        ("registry", "log", "demo/fp8"),
        ("registry", "aliases", "--history"),
    ):
        code, out, _ = ask(*command)
        assert (code, "agreed with evaluation" in out) == (0, True), command
    code, out, _ = ask("--json", "registry", "aliases", "demo/fp8")
    (row,) = json.loads(out)
    assert (row["alias"], row["version"]) == ("demo/fp8@prod", 3)
    assert ask("registry", "waive", "--end", "1")[1] == "waiver 1 of demo/fp8:3 ended\n"
    assert "breaks metrics: kl is 0.03" in ask("registry", "aliases")[1]
    assert ask("registry", "waive")[2] == "no open waivers\n"
    assert "agreed with evaluation" in ask("registry", "waive", "--all")[1]


def test_a_rollback_is_one_command_and_the_log_has_it(ask: Ask, published: Registry):
    ask("promote", "demo/fp8:1", "prod")
    ask("promote", "demo/fp8:2", "prod")
    ask("registry", "policy", "prod", "--metric", "kl<=0.001")
    code, out, err = ask("rollback", "demo/fp8@prod")
    assert (code, out) == (0, "demo/fp8@prod is version 1 again (was 2)\n")
    assert "warning: its policy would refuse version 1: metrics: kl is 0.01, more than 0.001" in err
    assert ask("rollback", "demo/fp8@prod")[0] == 2
    assert ask("rollback", "demo/fp8")[2].endswith("'demo/fp8' names no alias; write NAME@ALIAS\n")
    _, out, _ = ask("--json", "registry", "log", "-n", "1")
    (event,) = json.loads(out)
    assert (event["kind"], event["name"], event["detail"]["now"]) == ("rolled_back", "demo/fp8", 1)
    assert "@prod rolled back from version 2 to version 1" in ask("registry", "log")[1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("registry", "policy", "--drop"), "rules need an ALIAS"),
        (("registry", "policy", "prod", "--drop", "--verdict", "PASS"), "choose one"),
        (
            ("registry", "policy", "prod", "--verdict", "FAIL"),
            "rule verdict: ['FAIL'] is invalid; have PASS, UNVERIFIED",
        ),
        (
            ("registry", "policy", "prod", "--metric", "kl=3"),
            "--metric 'kl=3' is not a bound; write NAME>=X or NAME<=X",
        ),
        (("registry", "policy", "prod", "--signed-by", "pyproject.toml"), "give public keys in PEM"),
        (("registry", "waive", "demo/fp8:1", "prod"), "give NAME:VERSION ALIAS RULE, or nothing"),
        (
            ("registry", "waive", "demo/fp8:1", "prod", "metrics"),
            "a waiver needs --reason WHY and --for TIME",
        ),
        (
            ("registry", "waive", "demo/fp8:1", "prod", "metrics", "--reason", "x", "--for", "soon"),
            "--for 'soon' is not a duration",
        ),
        (
            ("registry", "waive", "demo/fp8:1", "prod", "kl", "--reason", "x", "--for", "1d"),
            "rule 'kl' cannot be waived",
        ),
        (("promote", "demo/fp8:1", "a b"), "alias 'a b' is not allowed"),
        (("registry", "log", "demo/fp9"), "similar names: demo/fp8"),
        (("registry", "aliases", "demo/fp9"), "similar names: demo/fp8"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_2(
    ask: Ask, published: Registry, command: tuple[str, ...], said: str
):
    code, _, err = ask(*command)
    assert (code, said in " ".join(err.split())) == (2, True), err
    assert (published.policies(), published.waivers()) == ({}, [])


def test_a_registry_on_a_server_is_made_and_shown_by_command(ask: Ask, postgres_url: str):
    secret = postgres_url.partition("@")[0].rpartition(":")[2]
    code, _, err = ask("--registry", postgres_url, "ls")
    assert (code, "registry init" in err) == (4, True)
    for done in ("created registry", "exists already: registry"):
        code, out, _ = ask("--registry", postgres_url, "registry", "init")
        assert (code, out.startswith(done)) == (0, True)
        assert secret not in out
    code, out, _ = ask("--registry", postgres_url, "--json", "registry", "show")
    shown = json.loads(out)
    assert (shown["kind"], shown["schema"], shown["versions"], shown["store"]) == ("postgresql", 3, 0, None)
    assert secret not in out + err
    assert ask("--registry", postgres_url, "ls")[0] == 0


def test_an_older_registry_is_upgraded_by_command_only(ask: Ask, tmp_path: Path):
    (tmp_path / "store").mkdir()
    with closing(sqlite3.connect(tmp_path / "store" / "registry.db")) as db:
        db.executescript((SCHEMAS / "1.sqlite.sql").read_text())
    code, _, err = ask("ls")
    assert (
        code,
        "has schema 1, and this version reads 3; bring it there with: enginery registry upgrade" in err,
    ) == (4, True)
    assert "bring it there with: enginery registry upgrade" in ask("registry", "show")[1]
    assert ask("registry", "upgrade")[1].endswith("schema 1 is now 3\n")
    assert ask("registry", "upgrade")[1].endswith("schema 3 is the newest already\n")
    code, out, _ = ask("registry", "aliases")
    assert (code, "demo/fp8@prod" in out) == (0, True)
    assert ask("registry", "show")[1].splitlines()[2:5] == ["schema     3", "names      3", "versions   5"]


def test_there_is_no_registry_before_something_is_written(ask: Ask, tmp_path: Path):
    assert ask("registry", "upgrade")[0] == 4
    assert ask("registry", "show")[1].splitlines()[2] == "schema     -"
    assert ask("registry", "aliases")[:2] == (0, "")
    assert ask("registry", "log")[:2] == (0, "")
    assert not (tmp_path / "store" / "registry.db").exists()
