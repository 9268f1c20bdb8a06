"""promote, rollback, aliases, log: which version people get, and who decided that."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.commands.generate import REFERENCE
from pipeline.cli.parameter_types import COUNT, ORDINAL

if TYPE_CHECKING:
    from artifacts.registry.registry import Judgement, Move


@click.command()
@REFERENCE
@click.argument("alias")
@click.option(
    "--expect", type=ORDINAL, help="Version the alias must point at now; default: what it is found at."
)
@click.option("--new", is_flag=True, help="The alias must not exist yet.")
@click.option("--dry-run", is_flag=True, help="Only say whether the alias would move.")
@click.pass_obj
def promote(app: App, reference: str, alias: str, expect: int | None, new: bool, dry_run: bool) -> None:
    """Point ALIAS at a version, unless its policy refuses it or somebody moved it first.

    Example: enginery promote demo/int4_awq_tp2:3 prod --expect 2
    """
    from artifacts.registry.aliases import refusal, require_expected  # SQLAlchemy: not for --help

    if new and expect is not None:
        raise click.UsageError("--new expects no version, and --expect one; choose one")
    record = app.client.resolve(reference)
    found = app.registry.aliases(record.name).get(alias)
    judgement = app.registry.judge(record.name, record.number, alias)
    expected = None if new else expect if expect is not None else found
    require_expected(found, record.name, alias, expected)
    if dry_run and not judgement.allowed:
        raise refusal(judgement, record.name, alias, record.number, found)
    if not dry_run:
        with app.announcing():
            app.registry.promote(record.name, alias, to=record.number, expect=expected)
    is_now = "may be" if dry_run else "is"
    said = f"{record.name}@{alias} {is_now} version {record.number}" + (f" (was {found})" if found else "")
    app.out.value(
        {"name": record.name, "alias": alias, "version": record.number, "was": found, **judgement.detail()},
        text="\n".join([said, *(f"waiver {by.id}: {by}" for _, by in judgement.waived)]),
        short=f"{record.name}:{record.number}",
    )


@click.command()
@click.argument("reference", metavar="NAME@ALIAS")
@click.option("--to", type=ORDINAL, help="Version to go back to; default: the one before.")
@click.option("--expect", type=ORDINAL, help="Version the alias must point at now.")
@click.pass_obj
def rollback(app: App, reference: str, to: int | None, expect: int | None) -> None:
    """Point an alias back at the version before; no policy stands in the way.

    Example: enginery rollback demo/int4_awq_tp2@prod
    """
    from artifacts.version import parse_reference  # with the registry

    wanted = parse_reference(reference)
    if wanted.alias is None:
        raise click.UsageError(f"{reference!r} names no alias; write NAME@ALIAS")
    move = app.registry.rollback(wanted.name, wanted.alias, to=to, expect=expect)
    app.announce()
    for one in app.registry.judge(move.name, move.now, move.alias).broken:
        app.out.warn(f"its policy would refuse version {move.now}: {one}")
    app.out.value(
        move.as_dict(),
        text=f"{move.name}@{move.alias} is version {move.now} again (was {move.was})",
        short=f"{move.name}:{move.now}",
    )


@click.command()
@click.argument("name", required=False)
@click.option("--history", is_flag=True, help="Every move of the aliases, oldest first.")
@click.pass_obj
def aliases(app: App, name: str | None, history: bool) -> None:
    """List aliases, who moved them when, and whether their versions still are what is asked.

    Example: enginery aliases demo/int4_awq_tp2 --history
    """
    if name is not None:
        app.registry.versions(name)
    if history:
        names = app.registry.names() if name is None else [name]
        moves = [move for one in names for move in app.registry.history(one)]
        app.out.rows([_move_row(app, move) for move in moves], id_column="alias")
        return
    rows = [
        {
            "alias": f"{one.name}@{one.alias}",
            "version": one.number,
            "since": shown(app, one.moved_at),
            "by": one.moved_by,
            "policy": _standing(one.judgement),
        }
        for one in app.registry.standings(name)
    ]
    app.out.rows(rows, id_column="alias")
    if not rows:
        app.out.say("no alias points anywhere; `enginery promote NAME:VERSION ALIAS` makes one")


@click.command()
@click.argument("name", required=False)
@click.option("-n", "--newest", type=COUNT, help="Only so many, the newest.")
@click.pass_obj
def log(app: App, name: str | None, newest: int | None) -> None:
    """Say what happened to NAME, or to everything: who did what and when, refusals too.

    Example: enginery log demo/int4_awq_tp2 -n 20
    """
    from artifacts.registry.telling import describe_event  # with the registry

    if name is not None:
        app.registry.versions(name)
    events = app.registry.events(name, newest=newest)
    if app.out.json_mode:
        app.out.rows([{**asdict(one), "at": one.at.isoformat()} for one in events], id_column="seq")
        return
    app.out.rows(
        [
            {
                "seq": one.seq,
                "at": shown(app, one.at),
                "by": one.by,
                "name": one.name or "-",
                "what": describe_event(one),
            }
            for one in events
        ],
        id_column="seq",
    )


def _standing(judgement: "Judgement") -> str:
    """Whether the version is what is asked; what it breaks, and what was waived and until when."""
    said = [f"breaks {one}" for one in judgement.broken]
    said += [f"{one.rule} waived until {by.until:%Y-%m-%d}: {by.reason}" for one, by in judgement.waived]
    return "; ".join(said) or "ok"


def _move_row(app: App, move: "Move") -> dict[str, Any]:
    return {
        "alias": f"{move.name}@{move.alias}",
        "at": shown(app, move.at),
        "by": move.by,
        "was": move.was,
        "now": move.now,
        "how": "rolled back" if move.rolled_back else "promoted",
        "waived": "; ".join(f"{one['rule']}: {one['reason']}" for one in move.waived) or None,
    }


def shown(app: App, at: datetime) -> str:
    """A moment as people read it, or whole as JSON."""
    return at.isoformat() if app.out.json_mode else f"{at:%Y-%m-%d %H:%M:%S}Z"
