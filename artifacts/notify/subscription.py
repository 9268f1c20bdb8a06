"""Who is told of which events, where, and with which secret."""

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
"""Read of the file of a secret, at most."""

SECRET_WORDS = re.compile(r"token|secret|passw|key|sig|auth|credential", re.IGNORECASE)
"""In names of parts of a query, where addresses carry secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Somebody who is told of events."""

    id: int
    way: Way
    target: str
    """URL or command line; or `env:NAME` or `file:PATH`, where an address is itself a secret."""
    secret: str | None
    """Where the secret of a webhook is: `env:NAME` or `file:PATH`."""
    kinds: tuple[str, ...]
    """Kinds of events that count; none means all."""
    names: str
    """Glob of the names that count."""
    after_seq: int
    """Events after this one count."""
    added_at: datetime
    """UTC."""
    added_by: str

    def wants(self, event: Event) -> bool:
        """Whether the subscriber is told of an event."""
        return (
            event.seq > self.after_seq
            and (not self.kinds or event.kind in self.kinds)
            and fnmatchcase(event.name, self.names)
        )

    @property
    def shown(self) -> str:
        """The target as anyone may see it: of a URL, only the host."""
        if self.way == "command" or is_elsewhere(self.target):
            return self.target
        return host_of(self.target)


def checked(way: Way, target: str, secret: str | None, kinds: Sequence[str]) -> None:
    """A SubscriptionRefused unless events can be told that way without a secret being stored."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SubscriptionRefused(f"no kind of event {unknown[0]!r}; there are {', '.join(KINDS)}")
    if not target.strip():
        raise SubscriptionRefused("nothing to call; give a URL or a command")
    if way == "command":
        if secret is not None:
            raise SubscriptionRefused("a command needs no secret; it gets the event in its environment")
        argv(target)
        return
    _check_webhook(target, secret)


def _check_webhook(target: str, secret: str | None) -> None:
    if secret is None:
        raise SubscriptionRefused(
            "a webhook needs a secret to be signed with; give --secret env:NAME or file:PATH, "
            "and make one with `enginery registry subscribe --new-secret FILE`"
        )
    if not is_elsewhere(secret):
        raise SubscriptionRefused("a secret is named, never given; give env:NAME or file:PATH")
    if not is_elsewhere(target):
        _without_secret(target)
    for where in (secret, target):
        if where.startswith("file:"):  # a variable may be set later
            read_secret(where.removeprefix("file:"))


def argv(command: str) -> list[str]:
    """The words of a command line; no shell reads it, so that nothing in it means more than it says."""
    try:
        return shlex.split(command)
    except ValueError as exc:
        raise SubscriptionRefused(f"the command {command!r} has {str(exc).lower()}; quote it again") from None


def checked_scheme(url: str) -> str:
    """The address, if it is one for HTTP; otherwise a SubscriptionRefused that does not show it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SubscriptionRefused("the webhook's address is no URL; give https://HOST/PATH")
    return url


def _without_secret(url: str) -> None:
    """A SubscriptionRefused, which does not show the address, where a secret is in it."""
    parts = urlsplit(checked_scheme(url))
    asked = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    secret = next((name for name in asked if SECRET_WORDS.search(name)), None)
    where = (
        "a user or password"
        if parts.username or parts.password
        else f"a secret ({secret})"
        if secret
        else None
    )
    if where:
        raise SubscriptionRefused(
            f"the address at {parts.hostname} has {where} in it, which would be stored; put the whole "
            "address into a variable or a file, and give env:NAME or file:PATH instead"
        )


def is_elsewhere(text: str) -> bool:
    """Whether text says where a secret is: `env:NAME` or `file:PATH`."""
    return bool(re.fullmatch(r"env:[A-Za-z_]\w*|file:.+", text))


def read_secret(path: str) -> str:
    """What the file of a secret holds; a SubscriptionRefused where it cannot be read."""
    try:
        return read_bytes(user_path(path), SECRET_BYTES).decode(errors="replace")
    except FileRefused as exc:
        raise SubscriptionRefused(f"file:{exc}; whoever notifies must be able to read it") from None


def looked_up(text: str, environ: Mapping[str, str]) -> str:
    """The secret that `env:NAME` or `file:PATH` names; a SubscriptionRefused where there is none here."""
    kind, _, where = text.partition(":")
    found = environ.get(where, "") if kind == "env" else read_secret(where)
    if not found.strip():
        raise SubscriptionRefused(f"{text} is empty or not set here; whoever notifies must have it")
    return found.strip()


def host_of(url: str) -> str:
    """Scheme and host of an address, which is all that messages show of it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a broken address"
    return f"{parts.scheme}://{parts.hostname or ''}"


def write_secret(path: Path) -> None:
    """Writes a new secret of 32 random bytes, for its owner only, as Standard Webhooks spell it."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    except OSError as exc:
        raise SubscriptionRefused(
            f"{path}: the secret cannot be written ({exc.strerror}); choose another file"
        ) from None
