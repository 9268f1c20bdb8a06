"""Subscriptions: a target, the events that it receives, and the secret that signs them."""

import base64
import os
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from artifacts.errors import SubscriptionRefused
from artifacts.version import KINDS, Event
from recipes.regular import FileRefused, read_bytes, user_path

Way = Literal["webhook", "command"]

SECRET_BYTES = 64 << 10
"""Largest secret file that is read."""

SECRET_WORDS = re.compile(r"token|secret|passw|key|sig|auth|credential", re.IGNORECASE)
"""Matches names of URL query parameters that hold secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscriber and the events that it receives."""

    id: int
    way: Way
    target: str
    """URL or command line; `env:NAME` or `file:PATH` where the URL itself is a secret."""
    secret: str | None
    """Where a webhook's secret is: `env:NAME` or `file:PATH`."""
    kinds: tuple[str, ...]
    """Kinds of events; empty means all."""
    names: str
    """Glob that names of versions must match."""
    after_seq: int
    """Only events with a larger sequence number are delivered."""
    added_at: datetime
    """UTC."""
    added_by: str

    def wants(self, event: Event) -> bool:
        """Whether the event is delivered to this subscriber."""
        return (
            event.seq > self.after_seq
            and (not self.kinds or event.kind in self.kinds)
            and fnmatchcase(event.name, self.names)
        )

    @property
    def shown(self) -> str:
        """The target without secrets: for a URL, only scheme and host."""
        if self.way == "command" or is_secret_reference(self.target):
            return self.target
        # Not the path: it may be the secret.
        return host_of(self.target)


def check_subscription(way: Way, target: str, secret: str | None, kinds: Sequence[str]) -> None:
    """Raise a SubscriptionRefused for an invalid subscription, and for one that would store a secret."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SubscriptionRefused(f"unknown kind of event {unknown[0]!r}; have {', '.join(KINDS)}")
    if not target.strip():
        raise SubscriptionRefused("the target is empty; give a URL or a command")
    if way == "command":
        if secret is not None:
            raise SubscriptionRefused("a command takes no secret: it gets the event in its environment")
        # Only for its error: a line that cannot be split is refused now, not at each delivery.
        argv(target)
        return
    _check_webhook(target, secret)


def _check_webhook(target: str, secret: str | None) -> None:
    if secret is None:
        raise SubscriptionRefused(
            "a webhook needs a secret that signs its messages; give --secret env:NAME or file:PATH, "
            "and make one with `enginery registry subscribe --new-secret FILE`"
        )
    if not is_secret_reference(secret):
        raise SubscriptionRefused(
            "--secret takes a reference, not the secret itself; give env:NAME or file:PATH"
        )
    if not is_secret_reference(target):
        _require_no_secret(target)
    for source in (secret, target):
        if source.startswith("file:"):  # a variable may be set later
            # Now, so that a wrong path is noticed by whoever subscribes, not by whoever delivers.
            read_secret(source.removeprefix("file:"))


def argv(command: str) -> list[str]:
    """The arguments of a command line; no shell interprets it."""
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise SubscriptionRefused(f"the command {command!r} has {str(exc).lower()}; quote it again") from None
    if not words or not words[0]:
        raise SubscriptionRefused(f"the command {command!r} names no program; give one, with its arguments")
    return words


def check_scheme(url: str) -> str:
    """The URL, if it is an HTTP URL; otherwise a SubscriptionRefused, which does not show it."""
    try:
        parts = urlsplit(url)
        # Reading `port` raises ValueError for one that is not a number, caught below.
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SubscriptionRefused("the webhook's address is not an HTTP URL; give https://HOST/PATH")
    return url


def _require_no_secret(url: str) -> None:
    """Raise a SubscriptionRefused, which does not show the URL, if it contains a secret."""
    parts = urlsplit(check_scheme(url))
    parameters = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    secret = next((name for name in parameters if SECRET_WORDS.search(name)), None)
    place = (
        "a user or password"
        if parts.username or parts.password
        else f"a secret ({secret})"
        if secret
        else None
    )
    if place:
        raise SubscriptionRefused(
            f"the address at {parts.hostname} has {place} in it, which would be stored; put the whole "
            "address into a variable or a file, and give env:NAME or file:PATH instead"
        )


def is_secret_reference(text: str) -> bool:
    """Whether the text is a reference to a secret: `env:NAME` or `file:PATH`."""
    return bool(re.fullmatch(r"env:[A-Za-z_]\w*|file:.+", text))


def read_secret(path: str) -> str:
    """The text of a secret file; a SubscriptionRefused where it cannot be read."""
    try:
        return read_bytes(user_path(path), SECRET_BYTES).decode(errors="replace")
    except FileRefused as exc:
        raise SubscriptionRefused(
            f"file:{exc}; the user who runs `enginery registry notify` must be able to read it"
        ) from None


def read_reference(text: str, environ: Mapping[str, str]) -> str:
    """The secret that `env:NAME` or `file:PATH` refers to; a SubscriptionRefused if it is empty."""
    kind, _, source = text.partition(":")
    secret = environ.get(source, "") if kind == "env" else read_secret(source)
    if not secret.strip():
        raise SubscriptionRefused(f"{text} is empty or not set; set it where `enginery registry notify` runs")
    # `write_secret` ends the file with a newline, which is not part of the secret.
    return secret.strip()


def host_of(url: str) -> str:
    """Scheme and host of a URL, the only parts that messages show."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a broken address"
    return f"{parts.scheme}://{parts.hostname or ''}"


def write_secret(path: Path) -> None:
    """Write a new secret of 32 random bytes in the format of Standard Webhooks, for its owner only."""
    try:
        # O_EXCL: an existing secret is never replaced, and the mode is right from the first byte.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    except OSError as exc:
        raise SubscriptionRefused(
            f"{path}: the secret cannot be written ({exc.strerror}); choose another file"
        ) from None
