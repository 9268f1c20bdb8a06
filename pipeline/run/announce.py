"""Tells subscribers of events: by webhook, or by a command of theirs; at once where somebody published."""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from artifacts.errors import SubscriptionRefused
from artifacts.notify import webhook
from artifacts.notify.message import Deliver, Outcome, body, message_id
from artifacts.notify.outbox import Due, Outbox
from artifacts.notify.subscription import Way, argv
from artifacts.registry.registry import Registry
from pipeline.errors import BuildFailed
from pipeline.process import process

HOOK_S = 60.0
"""How long a command may take; less than the outbox's claim lasts."""

PRIVATE = ("ENGINERY_KEY_PASSPHRASE", "ENGINERY_REGISTRY", "ENGINERY_TOKEN")
"""Variables that no hook needs to see."""


def call(due: Due) -> Outcome:
    """Runs the subscriber's command, which finds the event in `$ENGINERY_EVENT` and its parts beside it."""
    try:
        words = argv(due.subscription.target)
    except SubscriptionRefused as exc:
        # a bad command is the subscription's problem, recorded with it; others are still told
        return Outcome(problem=str(exc))
    with tempfile.TemporaryDirectory() as folder:
        job = process.Job(
            name=words[0], argv=words, log=Path(folder, "log"), timeout_s=HOOK_S, env=_environment(due)
        )
        try:
            process.run(job, on_line=lambda line: None)
        except BuildFailed as exc:
            return Outcome(problem=" ".join(str(exc).split()))
        except OSError as exc:
            return Outcome(problem=f"{words[0]} cannot be started here: {exc.strerror}")
    return Outcome()


WAYS: Mapping[Way, Deliver] = {"webhook": webhook.post_event, "command": call}
"""How each kind of subscriber is told."""


def soon(registry: Registry, registry_url: str, environ: Mapping[str, str]) -> bool:
    """Starts a process that tells whoever is due, if anybody is subscribed; return whether it did.

    Who publishes or promotes goes on at once: the telling can neither hold it up nor fail it.
    """
    if not Outbox(registry.database).subscriptions():
        return False
    # by the environment, which others cannot read: the URL may hold a password
    process.detach(
        [sys.executable, "-m", "pipeline.cli", "registry", "notify"],
        env={**environ, "ENGINERY_REGISTRY": registry_url},
    )
    return True


def _environment(due: Due) -> dict[str, str]:
    event = due.event
    own = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    number = event.detail.get("number", event.detail.get("now"))
    # events of aliases have no number, but the version that it points at now
    variables = {
        "ENGINERY_EVENT": body(event),
        "ENGINERY_EVENT_ID": message_id(event),
        "ENGINERY_EVENT_KIND": event.kind,
        "ENGINERY_EVENT_NAME": event.name,
        "ENGINERY_EVENT_VERSION": str(number) if isinstance(number, int) else "",
        "ENGINERY_EVENT_ALIAS": str(event.detail.get("alias", "")),
    }
    # an environment cannot hold NUL, and event texts come from users
    return own | {name: value.replace("\0", "") for name, value in variables.items()}
