"""subscribe, notify: subscribers of events, and deliveries to them."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import ORDINAL, PATH, SECONDS, refuse_unused

if TYPE_CHECKING:
    from artifacts.notify.deliver import Attempt
    from artifacts.notify.outbox import Outbox
    from artifacts.notify.subscription import Way


@click.command()
@click.option("--webhook", metavar="URL", help="Address that receives a signed POST; or env:NAME, file:PATH.")
@click.option("--secret", metavar="WHERE", help="Location of the webhook's secret: env:NAME or file:PATH.")
@click.option("--command", metavar="LINE", help="Program to start for each event, without a shell.")
@click.option("--names", default="*", show_default=True, help="Only names that match this glob.")
@click.option("--kind", "kinds", multiple=True, help="Only this kind of event; repeatable. Default: all.")
@click.option("--remove", type=ORDINAL, metavar="ID", help="Remove a subscriber.")
@click.option("--new-secret", type=PATH, help="Write a new webhook secret to a file.")
@click.pass_obj
def subscribe(
    app: App,
    /,
    webhook: str | None,
    command: str | None,
    remove: int | None,
    new_secret: Path | None,
    **options: "str | tuple[str, ...] | None",
) -> None:
    """Send future events to a webhook or a command; without an option, list the subscribers.

    Example: enginery registry subscribe --webhook https://ci.example/hook --secret env:HOOK_SECRET
    """
    actions = [action for action in (webhook, command, remove, new_secret) if action is not None]
    if len(actions) > 1:
        raise click.UsageError("give one of --webhook, --command, --remove and --new-secret")
    if webhook is None and command is None:
        refuse_unused("without --webhook or --command", "secret", "names", "kinds")
    if new_secret is not None:
        _make_secret(app, new_secret)
    elif remove is not None:
        _outbox(app).unsubscribe(remove)
        app.out.value({"removed": remove}, text=f"subscriber {remove} is removed", short=str(remove))
    elif webhook is not None:
        _subscribe(app, "webhook", webhook, options)
    elif command is not None:
        _subscribe(app, "command", command, options)
    else:
        _list_subscribers(app)


@click.command()
@click.option("--follow", is_flag=True, help="Deliver until stopped, instead of once.")
@click.option("--every", type=SECONDS, default=5.0, show_default=True, help="Seconds between deliveries.")
@click.option("--list", "list_", is_flag=True, help="List the state of every delivery, and deliver nothing.")
@click.option(
    "--retry", type=ORDINAL, metavar="ID", help="Retry the deliveries that were given up for a subscriber."
)
@click.pass_obj
def notify(app: App, follow: bool, every: float, list_: bool, retry: int | None) -> None:
    """Deliver pending notifications; failed deliveries are retried for about three days.

    Commands that publish or promote start this themselves. Run it with --follow, or from cron, to retry
    failed deliveries.

    Example: enginery registry notify --follow
    """
    if not follow:
        refuse_unused("without --follow", "every")
    outbox = _outbox(app)
    if list_:
        refuse_unused("with --list, which delivers nothing", "follow", "every", "retry")
        _list_deliveries(app, outbox)
        return
    if retry is not None:
        count = outbox.retry(retry, datetime.now(UTC))
        app.out.say(f"{count} events are retried for subscriber {retry}")
    if follow:
        _follow(app, outbox, every)
    elif not _deliver(app, outbox):
        app.out.rows([], id_column="event")
        app.out.say("no notification is due now; `enginery registry notify --list` shows those that wait")


def _follow(app: App, outbox: "Outbox", every_s: float) -> None:
    """Delivers what is due until Ctrl-C; as JSON, one document per round with deliveries."""
    try:
        while True:
            _deliver(app, outbox)
            app.out.flush()
            time.sleep(every_s)
    except KeyboardInterrupt:
        app.out.say("stopped; the next `enginery registry notify` delivers what is pending")


def _deliver(app: App, outbox: "Outbox") -> "Sequence[Attempt]":
    from artifacts.notify.deliver import deliver_due  # httpx: not for --help
    from pipeline.run.announce import WAYS

    deliveries = deliver_due(outbox, WAYS, lambda: datetime.now(UTC))
    # no document for a round without deliveries, of which `_follow` has many
    if deliveries and app.out.json_mode:
        app.out.rows([_row(delivery) for delivery in deliveries], id_column="event")
    for delivery in deliveries if not app.out.json_mode else ():
        who, event = delivery.due.subscription, delivery.due.event
        event_text = f"{event.kind} {event.name}"
        if not delivery.problem:
            app.out.line(f"delivered {event_text} to {who.id} ({who.shown})")
        elif delivery.again_at:
            when = f"{delivery.again_at:%Y-%m-%d %H:%M:%S} UTC"
            app.out.warn(
                f"subscriber {who.id} did not receive {event_text}: {delivery.problem}; next try {when}"
            )
        else:
            app.out.warn(f"subscriber {who.id} will not receive {event_text}: {delivery.problem}")
    return deliveries


def _subscribe(app: App, way: "Way", target: str, options: "dict[str, str | tuple[str, ...] | None]") -> None:
    names, secret, kinds = options["names"], options["secret"], options["kinds"]
    assert isinstance(names, str)
    assert isinstance(kinds, tuple)
    outbox = _outbox(app)
    number = outbox.subscribe(
        way, target, secret=secret if isinstance(secret, str) else None, kinds=kinds, names=names
    )
    subscription = next(candidate for candidate in outbox.subscriptions() if candidate.id == number)
    kinds_text = ", ".join(kinds) or "every event"
    app.out.value(
        {"id": number, "way": way, "target": subscription.shown, "kinds": list(kinds), "names": names},
        text=f"subscriber {number} ({subscription.shown}) receives {kinds_text} of {names}",
        short=str(number),
    )


def _make_secret(app: App, path: Path) -> None:
    from artifacts.notify.subscription import write_secret  # not for --help

    write_secret(path)
    app.out.value(
        {"secret": str(path)},
        # absolute: `notify` runs in other directories
        text=f"new secret in {path}; give it to the receiver, and give --secret file:{path.absolute()}",
        short=str(path),
    )


def _list_subscribers(app: App) -> None:
    outbox = _outbox(app)
    every = outbox.deliveries()
    rows = [
        {
            "id": subscription.id,
            "way": subscription.way,
            "target": subscription.shown,
            "names": subscription.names,
            "kinds": ", ".join(subscription.kinds) or "all",
            "added_by": subscription.added_by,
            "told": sum(item.state == "told" for item in every if item.subscription == subscription.id),
            "waiting": sum(item.state == "waits" for item in every if item.subscription == subscription.id),
            "given_up": sum(
                item.state == "given up" for item in every if item.subscription == subscription.id
            ),
        }
        for subscription in outbox.subscriptions()
    ]
    app.out.rows(rows, id_column="id")
    if not rows:
        app.out.say("no subscribers; see `enginery registry subscribe --help`")


def _list_deliveries(app: App, outbox: "Outbox") -> None:
    rows = [
        {
            "event": delivery.seq,
            "subscriber": delivery.subscription,
            "state": delivery.state,
            "attempts": delivery.attempts,
            "next_at": f"{delivery.next_at:%Y-%m-%d %H:%M:%S}" if delivery.next_at else None,
            "problem": delivery.problem,
        }
        for delivery in outbox.deliveries()
    ]
    app.out.rows(rows, id_column="event")
    if not rows:
        app.out.say("no deliveries yet")


def _row(delivery: "Attempt") -> dict[str, object]:
    return {
        "event": delivery.due.event.seq,
        "subscriber": delivery.due.subscription.id,
        "kind": delivery.due.event.kind,
        "name": delivery.due.event.name,
        "attempt": delivery.due.attempt,
        "problem": delivery.problem or None,
        "again_at": delivery.again_at.isoformat() if delivery.again_at else None,
    }


def _outbox(app: App) -> "Outbox":
    from artifacts.notify.outbox import Outbox  # SQLAlchemy: not for --help

    return Outbox(app.registry.database)
