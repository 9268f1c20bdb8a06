"""Opens the store at a URL or a path."""

import hashlib
import os
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
"""Store used where none is named."""

SCHEMES = ("file", "s3", "gs", "az")
"""URL schemes of stores: a directory, S3-compatible, Google Cloud Storage and Azure."""

CACHE = "~/.cache/enginery"
"""Directory of caches where `$ENGINERY_CACHE` is not set."""

MAX_BYTES = "200GB"
"""Largest size of a cache where `$ENGINERY_CACHE_MAX` is not set."""

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}  # fmt: skip


def open_store(url_or_path: str | Path) -> LocalStore:
    """The store at a URL or a local path, with a cache for a remote one; the first write creates it."""
    return store_at(str(url_or_path), os.environ)


def store_at(text: str, environ: Mapping[str, str]) -> LocalStore:
    """The store at a URL or a local path; StoreUnknown, without secrets, for an unknown URL; FileRefused for
    a path that is not a directory."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme not in SCHEMES:
        raise StoreUnknown(
            f"no store for scheme {scheme!r} in {shown(text)!r}; this version has {', '.join(SCHEMES)}"
        )
    if separator and scheme != "file":
        return open_cached(text, environ)
    directory = rest if separator else text
    if not directory:
        raise StoreUnknown(f"store {text!r} names no directory; give one, e.g. {DEFAULT_STORE}")
    root = user_path(directory).absolute()
    require_kind(root, "a directory")
    store = LocalStore(root)
    with suppress(ArtifactCorrupt):  # `verify` reports it, and the next write fails
        store.identity()
    return store


def open_cached(url: str, environ: Mapping[str, str]) -> CachedStore:
    """The remote store at a URL; `ENGINERY_CACHE` and `ENGINERY_CACHE_MAX` set directory and size of its
    cache."""
    place = parse(url)
    name = re.sub(r"[^a-z0-9]+", "-", place.url.lower())[:40]
    folder = f"{name}-{hashlib.sha256(place.url.encode()).hexdigest()[:12]}"
    return CachedStore(
        RemoteStore(place),
        caches(environ) / folder,
        max_bytes=parse_size(environ.get("ENGINERY_CACHE_MAX") or MAX_BYTES),
    )


def caches(environ: Mapping[str, str]) -> Path:
    """Directory of this user's caches."""
    return user_path(environ.get("ENGINERY_CACHE") or CACHE).absolute()


def parse_size(text: str) -> int:
    """Bytes: `200GB`, `1.5TiB`, `5000000`; anything else is a StoreUnknown."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-zA-Z]*)", text.strip())
    if match is None or match.group(2).upper() not in UNITS:
        raise StoreUnknown(
            f"ENGINERY_CACHE_MAX: {shortened(text)!r} is not a size; write e.g. 200GB or 1.5TiB"
        )
    return int(float(match.group(1)) * UNITS[match.group(2).upper()])
