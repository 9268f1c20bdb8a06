"""Which store a URL or a path means."""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from artifacts.errors import ArtifactCorrupt, StoreUnknown
from artifacts.store.cached import CachedStore
from artifacts.store.local import LocalStore
from artifacts.store.remote.remote_place import parse, shown
from artifacts.store.remote.remote_store import RemoteStore
from recipes.regular import require_kind, shortened, user_path

DEFAULT_STORE = "~/.enginery"
"""Store used when nobody names one."""

SCHEMES = ("file", "s3", "gs", "az")
"""Kinds of stores: a directory; S3-compatible, Google Cloud Storage and Azure."""

CACHE = "~/.cache/enginery"
"""Where caches are when `$ENGINERY_CACHE` says nothing."""

MAX_BYTES = "200GB"
"""What a cache holds at most when `$ENGINERY_CACHE_MAX` says nothing."""

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}  # fmt: skip


def opened(text: str, environ: Mapping[str, str]) -> LocalStore:
    """The store at a URL or a local path; a StoreUnknown, without secrets, where it names none; a FileRefused
    where something else than a directory is there."""
    scheme, found, rest = text.partition("://")
    if found and scheme not in SCHEMES:
        raise StoreUnknown(
            f"no store for scheme {scheme!r} in {shown(text)!r}; this version has {', '.join(SCHEMES)}"
        )
    if found and scheme != "file":
        return open_cached(text, environ)
    directory = rest if found else text
    if not directory:
        raise StoreUnknown(f"store {text!r} names no directory; give one, e.g. {DEFAULT_STORE}")
    root = user_path(directory).absolute()
    require_kind(root, "a directory")
    store = LocalStore(root)
    with suppress(ArtifactCorrupt):  # named by `verify`, refused by the next write
        store.identity()
    return store


def open_cached(url: str, environ: Mapping[str, str]) -> CachedStore:
    """The remote store at a URL; `ENGINERY_CACHE` and `ENGINERY_CACHE_MAX` say where its cache is and how
    large it becomes."""
    place = parse(url)
    name = re.sub(r"[^a-z0-9]+", "-", place.url.lower())[:40]
    folder = f"{name}-{hashlib.sha256(place.url.encode()).hexdigest()[:12]}"
    return CachedStore(
        RemoteStore(place),
        caches(environ) / folder,
        max_bytes=parse_size(environ.get("ENGINERY_CACHE_MAX") or MAX_BYTES),
    )


def caches(environ: Mapping[str, str]) -> Path:
    """Where this user's caches are."""
    return user_path(environ.get("ENGINERY_CACHE") or CACHE).absolute()


def parse_size(text: str) -> int:
    """Bytes: `200GB`, `1.5TiB`, `5000000`; anything else is a StoreUnknown."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-zA-Z]*)", text.strip())
    if found is None or found.group(2).upper() not in UNITS:
        raise StoreUnknown(f"ENGINERY_CACHE_MAX: {shortened(text)!r} is no size; write e.g. 200GB or 1.5TiB")
    return int(float(found.group(1)) * UNITS[found.group(2).upper()])
