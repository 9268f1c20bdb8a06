"""Which object store a URL means; credentials come from the environment and never from the URL."""

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
"""Scheme of a URL -> variables that hold its credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an object store may take, and how often it is asked again."""

    stall_s: float = 30.0
    """An answer of which no byte comes for so long has failed."""
    request_s: float = 300.0
    """A request, which moves at most one part, has failed after so long: eight parts of 16 MiB at a time
    need 0.5 MB/s."""
    outage_s: float = 180.0
    """A request that keeps failing is given up after so long; until then 5xx answers, refused connections
    and timeouts are tried again."""
    retries: int = 10
    """How often one request is repeated at most."""
    backoff_s: float = 0.2
    """Pause before the first repetition; it doubles, with jitter, up to 15 s."""


BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""Names of buckets and containers in any of the stores."""


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
    """The place a URL names; a StoreUnknown that shows no secret where it holds one, or names no bucket."""
    scheme, _, rest = url.partition("://")
    host, _, prefix = rest.partition("/")
    if "@" in host or {"?", "#"} & set(rest):
        raise StoreUnknown(
            f"{scheme}:// store URL with a user, password, token or query in it; name bucket and prefix only "
            f"and put credentials into {CREDENTIALS[scheme]}"
        )
    parts = [part for part in prefix.split("/") if part]
    if not host or {".", ".."} & {host, *parts}:
        raise StoreUnknown(f"store {url!r} names no bucket and prefix; write {scheme}://BUCKET/PREFIX")
    if not BUCKET.fullmatch(host):
        raise StoreUnknown(
            f"{shortened(host)!r} is no name of a bucket; use letters, digits, '.', '_' and '-'"
        )
    return Place(scheme, host, "/".join(parts))


def shown(url: str) -> str:
    """The URL without anything that may be a secret: user, password, query, fragment."""
    scheme, found, rest = re.split("[?#]", url, maxsplit=1)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{found}{host.rpartition('@')[2]}{slash}{path}"


def connect(place: Place, patience: Patience, *, sending: bool = False) -> "ObjectStore":
    """A handle of the place, by which every request is repeated as `patience` says.

    The HTTP client counts the time that sending a body takes as waiting for the answer, so that a handle for
    `sending` much has no limit on that but `request_s`.
    """
    # plain http is for servers inside, and asked for in the endpoint's own URL
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
