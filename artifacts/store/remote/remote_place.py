"""Parses URLs of object stores; credentials come from the environment, never from the URL."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.store import from_url

from artifacts.errors import StoreUnknown
from recipes.regular import shortened

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore

CREDENTIALS: Mapping[str, str] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT, or GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""Scheme of a URL -> environment variables with its credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Timeouts and retries of requests to an object store."""

    stall_s: float = 30.0
    """Longest wait for the next byte of a response."""
    request_s: float = 300.0
    """Longest request, which transfers at most one part: eight parts of 16 MiB at a time need 0.5 MB/s."""
    outage_s: float = 180.0
    """Longest time for retries of a request after 5xx responses, refused connections and timeouts."""
    retries: int = 10
    """Most retries of one request."""
    backoff_s: float = 0.2
    """Pause before the first repetition; it doubles, with jitter, up to 15 s."""


BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""Matches names of buckets and containers of all kinds of stores."""


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix in a bucket, or in an Azure container."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """The place as a URL, without a slash at its end."""
        return f"{self.scheme}://{self.bucket}{'/' if self.prefix else ''}{self.prefix}"


def parse(url: str) -> Place:
    """The place that a URL names; StoreUnknown, without secrets, for URLs with credentials or no bucket."""
    scheme, _, rest = url.partition("://")
    host, _, prefix = rest.partition("/")
    # Checked first: the messages below show the URL, this one must not.
    if "@" in host or {"?", "#"} & set(rest):
        raise StoreUnknown(
            f"{scheme}:// store URL with a user, password, token or query in it; name bucket and prefix only "
            f"and put credentials into {CREDENTIALS[scheme]}"
        )
    parts = [part for part in prefix.split("/") if part]
    # Dot segments would let the prefix lead to another place in the bucket.
    if not host or {".", ".."} & {host, *parts}:
        raise StoreUnknown(f"store {url!r} names no bucket and prefix; write {scheme}://BUCKET/PREFIX")
    if not BUCKET.fullmatch(host):
        raise StoreUnknown(f"{shortened(host)!r} is not a bucket name; use letters, digits, '.', '_' and '-'")
    return Place(scheme, host, "/".join(parts))


def shown(url: str) -> str:
    """The URL without parts that may be secret: user, password, query, fragment."""
    # The query and fragment go first: an `@` in them must not be taken for the user's end.
    scheme, separator, rest = re.split("[?#]", url, maxsplit=1)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def connect(place: Place, patience: Patience, *, sending: bool = False) -> "ObjectStore":
    """A client for the place with the timeouts and retries of `patience`.

    The HTTP client counts the time for sending a body as waiting for the response. So a client for `sending`
    large bodies has no read timeout, only `request_s`.
    """
    # Plain HTTP is used only where the endpoint's own URL says so, e.g. for servers in a private network.
    limits: ClientConfig = {"allow_http": True, "timeout": timedelta(seconds=patience.request_s)}
    if not sending:
        limits["read_timeout"] = timedelta(seconds=patience.stall_s)
    return from_url(
        place.url,
        client_options=limits,
        retry_config={
            "max_retries": patience.retries,
            "retry_timeout": timedelta(seconds=patience.outage_s),
            "backoff": {
                "init_backoff": timedelta(seconds=patience.backoff_s),
                "max_backoff": timedelta(seconds=15),
                "base": 2,
            },
        },
    )
