"""policy, waive: rules of aliases, and exemptions from them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import MOST_DAYS, ORDINAL, Finite, PathType, refuse_unused
from pipeline.cli.commands.promote import moment
from recipes.regular import read_bytes

if TYPE_CHECKING:
    from artifacts.registry.registry import Policy, Request, Waiver


@click.command()
@click.argument("alias", required=False)
@click.option("--verdict", multiple=True, help="Accepted verdict: PASS or UNVERIFIED; repeatable.")
@click.option(
    "--max-age-days", type=Finite(max=MOST_DAYS), help="Largest age of a version, in days since publication."
)
@click.option(
    "--signed-by",
    multiple=True,
    type=PathType(exists=True, dir_okay=False),
    help="PEM file of a public key; one of them must have signed the version; repeatable.",
)
@click.option(
    "--measured-on-target", is_flag=True, help="Require a speed measured on the GPU that the version targets."
)
@click.option("--metric", "bounds", multiple=True, help="Bound of a metric, NAME>=X or NAME<=X; repeatable.")
@click.option(
    "--no-open-waivers", is_flag=True, help="Require that the version has no open waiver, for any alias."
)
@click.option("--drop", is_flag=True, help="Remove the policy.")
@click.pass_obj
def policy(app: App, /, alias: str | None, drop: bool, **rules: Any) -> None:
    """Show the policies of aliases, or replace the policy of ALIAS; it applies to all names.

    Example: enginery registry policy prod --max-age-days 30 --measured-on-target --metric 'kl<=0.02'
    """
    from artifacts.registry.policy import parse_policy  # with the registry

    document = _document(**rules)
    if (document or drop) and not alias:
        raise click.UsageError("rules need an ALIAS; `enginery registry policy` alone lists the policies")
    if document and drop:
        raise click.UsageError("--drop removes the policy, and rules set one; choose one")
    if alias and (document or drop):
        app.registry.set_policy(alias, None if drop else parse_policy(document))
        app.announce()
    # read back, so that the answer is what the registry has
    policies = {name: rules for name, rules in app.registry.policies().items() if alias in (None, name)}
    app.out.rows(
        [row for name, rules in policies.items() for row in _rule_rows(name, rules)], id_column="alias"
    )
    if not policies:
        app.out.say(f"{f'@{alias} has' if alias else 'aliases have'} no policy: verdict PASS is enough")


@click.command()
@click.argument("reference", metavar="[NAME[:VERSION]]", required=False)
@click.argument("alias", required=False)
@click.argument("rule", required=False)
@click.option("--reason", help="Reason, shown with the version.")
@click.option("--for", "duration", metavar="TIME", help="Duration: 12h, 7d, 2w.")
@click.option("--end", type=ORDINAL, metavar="ID", help="End an open waiver now.")
@click.option("--all", "ended", is_flag=True, help="List expired waivers too.")
@click.pass_obj
def waive(
    app: App, /, reference: str | None, alias: str | None, rule: str | None, end: int | None, **options: Any
) -> None:
    """Exempt a version from RULE of an alias's policy for a time, or list open waivers.

    Example: enginery registry waive demo/int4_awq_tp2:3 prod max_age_days --reason 'rebuild queued' --for 7d
    """
    if end is not None:
        refuse_unused("with --end", "reference", "alias", "rule", "reason", "duration", "ended")
        waiver = app.registry.end_waiver(end)
        app.announce()
        app.out.value(
            waiver.as_dict(),
            text=f"waiver {waiver.id} of {waiver.name}:{waiver.number} ended",
            short=str(waiver.id),
        )
    elif rule is not None and alias is not None and reference is not None:
        refuse_unused("on a new waiver", "ended")
        waiver = app.registry.waive(_request(app, reference, alias, rule, options))
        app.announce()
        text = f"waiver {waiver.id}: {waiver.name}:{waiver.number} {waiver}"
        app.out.value(waiver.as_dict(), text=text, short=str(waiver.id))
    elif alias is not None:
        raise click.UsageError("give NAME:VERSION ALIAS RULE, or nothing or a NAME to list waivers")
    else:
        refuse_unused("without an ALIAS and a RULE", "reason", "duration")
        waivers = _waivers(app, reference, ended=options["ended"])
        app.out.rows([_waiver_row(app, item) for item in waivers], id_column="id")
        if not waivers:
            app.out.say("no open waivers")


def _waivers(app: App, reference: str | None, *, ended: bool) -> "list[Waiver]":
    """Waivers of a name, or of one of its versions; of all where there is no reference."""
    from artifacts.version import parse_reference  # with the registry

    if reference is None:
        return app.registry.waivers(ended=ended)
    target = parse_reference(reference)
    waivers = app.registry.waivers(target.name, ended=ended)
    if target.alias is None and target.number is None:
        app.registry.versions(target.name)  # says which names are close
        return waivers
    number = app.client.resolve(reference).number
    return [waiver for waiver in waivers if waiver.number == number]


def _request(app: App, reference: str, alias: str, rule: str, options: dict[str, Any]) -> "Request":
    from artifacts.registry.registry import Request  # SQLAlchemy: not for --help

    if not options["reason"] or not options["duration"]:
        raise click.UsageError("a waiver needs --reason WHY and --for TIME, e.g. --for 7d")
    record = app.client.resolve(reference)
    until = datetime.now(UTC) + _time(options["duration"])
    return Request(
        name=record.name, number=record.number, alias=alias, rule=rule, reason=options["reason"], until=until
    )


def _time(text: str) -> timedelta:
    units = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
    count, unit = text[:-1], text[-1:]
    if unit not in units or not count.isdecimal() or len(count) > 4 or not int(count):
        raise click.UsageError(f"--for {text!r} is not a duration; write 12h, 7d or 2w")
    return int(count) * units[unit]


def _document(
    *,
    verdict: tuple[str, ...],
    max_age_days: float | None,
    signed_by: tuple[Path, ...],
    measured_on_target: bool,
    bounds: tuple[str, ...],
    no_open_waivers: bool,
) -> dict[str, Any]:
    """The rules that were given, as `parse_policy` reads them."""
    rules: dict[str, Any] = {
        "verdict": list(verdict),
        "max_age_days": max_age_days,
        # the key itself, not its path: the file may change or go
        "signed_by": [read_bytes(path).decode(errors="replace") for path in signed_by],
        "measured_on_target": measured_on_target,
        "metrics": _bounds(bounds),
        "no_open_waivers": no_open_waivers,
    }
    return {name: value for name, value in rules.items() if value not in (None, [], {}, False)}


def _bounds(texts: tuple[str, ...]) -> dict[str, dict[str, float]]:
    limits: dict[str, dict[str, float]] = {}
    for text in texts:
        # a text with neither sign leaves no number behind it, and is refused below
        sign = ">=" if ">=" in text else "<="
        name, _, value = text.partition(sign)
        try:
            limits.setdefault(name.strip(), {})["min" if sign == ">=" else "max"] = float(value)
        except ValueError:
            raise click.UsageError(f"--metric {text!r} is not a bound; write NAME>=X or NAME<=X") from None
    return limits


def _rule_rows(alias: str, policy: "Policy") -> list[dict[str, Any]]:
    from artifacts.registry.telling import describe_rule  # with the registry

    rules = policy.as_dict()
    return [
        {"alias": f"@{alias}", "rule": rule, "asks": describe_rule(value)} for rule, value in rules.items()
    ]


def _waiver_row(app: App, waiver: "Waiver") -> dict[str, Any]:
    return {
        "id": waiver.id,
        "version": f"{waiver.name}:{waiver.number}",
        "alias": f"@{waiver.alias}",
        "rule": waiver.rule,
        "until": moment(app, waiver.until),
        "by": waiver.granted_by,
        "reason": waiver.reason,
    }
