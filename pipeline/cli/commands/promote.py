"""promote, rollback, aliases, log: where aliases point, and the events of the registry."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import COUNT, ORDINAL
from pipeline.cli.commands.generate import REFERENCE

if TYPE_CHECKING:
    from artifacts.registry.registry import Judgement, Move


@click.command()
@REFERENCE
@click.argument("alias")
@click.option(
    "--expect", type=ORDINAL, help="Version that the alias must point at now; default: the current one."
)
@click.option("--new", is_flag=True, help="The alias must not exist yet.")
@click.option("--dry-run", is_flag=True, help="Check the policy, and move nothing.")
@click.pass_obj
def promote(app: App, reference: str, alias: str, expect: int | None, new: bool, dry_run: bool) -> None:
    """Point ALIAS at a version, unless its policy refuses or the alias moved in the meantime.

    Example: enginery promote demo/int4_awq_tp2:3 prod --expect 2
    """
    from artifacts.registry.aliases import refusal, require_expected  # SQLAlchemy: not for --help

    if new and expect is not None:
        raise click.UsageError(
            "--new expects that the alias does not exist, and --expect a version; choose one"
        )
    record = app.client.resolve(reference)
    current = app.registry.aliases(record.name).get(alias)
    judgement = app.registry.judge(record.name, record.number, alias)
    # where nothing is said, what was read just now must still hold at the move
    expected = None if new else expect if expect is not None else current
    # before the policy's verdict, which would be about another change if the alias moved
    require_expected(current, record.name, alias, expected)
    if dry_run and not judgement.allowed:
        raise refusal(judgement, record.name, alias, record.number, current)
    if not dry_run:
        with app.announcing():
            app.registry.promote(record.name, alias, to=record.number, expect=expected)
    is_now = "may be" if dry_run else "is"
    text = f"{record.name}@{alias} {is_now} version {record.number}" + (
        f" (was {current})" if current else ""
    )
    app.out.value(
        {"name": record.name, "alias": alias, "version": record.number, "was": current, **judgement.detail()},
        text="\n".join([text, *(f"waiver {by.id}: {by}" for _, by in judgement.waived)]),
        short=f"{record.name}:{record.number}",
    )


@click.command()
@click.argument("reference", metavar="NAME@ALIAS")
@click.option("--to", type=ORDINAL, help="Version to return to; default: the previous one.")
@click.option("--expect", type=ORDINAL, help="Version that the alias must point at now.")
@click.pass_obj
def rollback(app: App, reference: str, to: int | None, expect: int | None) -> None:
    """Point an alias at its previous version; policies do not apply.

    Example: enginery rollback demo/int4_awq_tp2@prod
    """
    from artifacts.version import parse_reference  # with the registry

    target = parse_reference(reference)
    if target.alias is None:
        raise click.UsageError(f"{reference!r} names no alias; write NAME@ALIAS")
    move = app.registry.rollback(target.name, target.alias, to=to, expect=expect)
    app.announce()
    # no policy refuses a rollback; what is violated is still told
    for violation in app.registry.judge(move.name, move.now, move.alias).broken:
        app.out.warn(f"its policy would refuse version {move.now}: {violation}")
    app.out.value(
        move.as_dict(),
        text=f"{move.name}@{move.alias} is version {move.now} again (was {move.was})",
        short=f"{move.name}:{move.now}",
    )


@click.command()
@click.argument("name", required=False)
@click.option("--history", is_flag=True, help="List every move of the aliases, oldest first.")
@click.pass_obj
def aliases(app: App, name: str | None, history: bool) -> None:
    """List aliases: when and by whom they moved, and whether their versions satisfy the policy.

    Example: enginery registry aliases demo/int4_awq_tp2 --history
    """
    if name is not None:
        # NotFound with similar names, where an empty list would say nothing
        app.registry.versions(name)
    if history:
        names = app.registry.names() if name is None else [name]
        moves = [move for each_name in names for move in app.registry.history(each_name)]
        app.out.rows([_move_row(app, move) for move in moves], id_column="alias")
        return
    rows = [
        {
            "alias": f"{each_name.name}@{each_name.alias}",
            "version": each_name.number,
            "since": moment(app, each_name.moved_at),
            "by": each_name.moved_by,
            "policy": _standing(each_name.judgement),
        }
        for each_name in app.registry.standings(name)
    ]
    app.out.rows(rows, id_column="alias")
    if not rows:
        app.out.say("no aliases; create one with `enginery promote NAME:VERSION ALIAS`")


@click.command()
@click.argument("name", required=False)
@click.option("-n", "--newest", type=COUNT, help="List only this many events, the newest.")
@click.pass_obj
def log(app: App, name: str | None, newest: int | None) -> None:
    """List the events of NAME, or of all names: who did what and when, refusals included.

    Example: enginery registry log demo/int4_awq_tp2 -n 20
    """
    from artifacts.registry.telling import describe_event  # with the registry

    if name is not None:
        app.registry.versions(name)
    events = app.registry.events(name, newest=newest)
    if app.out.json_mode:
        app.out.rows([{**asdict(event), "at": event.at.isoformat()} for event in events], id_column="seq")
        return
    app.out.rows(
        [
            {
                "seq": event.seq,
                "at": moment(app, event.at),
                "by": event.by,
                "name": event.name or "-",
                "what": describe_event(event),
            }
            for event in events
        ],
        id_column="seq",
    )


def _standing(judgement: "Judgement") -> str:
    """The rules that a version violates, and those that are waived, until when."""
    texts = [f"breaks {violation}" for violation in judgement.broken]
    texts += [
        f"{violation.rule} waived until {by.until:%Y-%m-%d}: {by.reason}"
        for violation, by in judgement.waived
    ]
    return "; ".join(texts) or "ok"


def _move_row(app: App, move: "Move") -> dict[str, Any]:
    return {
        "alias": f"{move.name}@{move.alias}",
        "at": moment(app, move.at),
        "by": move.by,
        "was": move.was,
        "now": move.now,
        "how": "rolled back" if move.rolled_back else "promoted",
        "waived": "; ".join(f"{waiver['rule']}: {waiver['reason']}" for waiver in move.waived) or None,
    }


def moment(app: App, at: datetime) -> str:
    """A moment to the second, or as ISO 8601 for JSON."""
    return at.isoformat() if app.out.json_mode else f"{at:%Y-%m-%d %H:%M:%S}Z"
