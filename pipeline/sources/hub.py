"""Asks the Hugging Face hub: what a commit holds, bytes of its files, and the headers of its weights.

Requests go through huggingface_hub's session, so that its token, proxy and offline settings apply.
Addresses are kept out of messages, because redirects carry signatures.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from pipeline.errors import SourceError
from pipeline.models.model_json import MODEL
from pipeline.sources.snapshot import HEADERS_ONLY, INDEX, NAMES, Remote, check_names, require_sizes
from pipeline.weights.tensors import MAX_HEADER_BYTES, header_end

T = TypeVar("T")

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP answers that another attempt may not get."""

TIMEOUT = httpx.Timeout(30, connect=10)
"""Seconds without a byte before an attempt counts as failed."""

ATTEMPTS, PLAN_ATTEMPTS = 6, 2
"""Failures in a row that are endured during a download, and while somebody waits for a plan."""

LONGEST_WAIT_S = 300
"""A hub that asks for more than this ends the attempt."""

HEADER_STREAMS = 8
"""Headers fetched at once."""

MAX_FILE_BYTES = 8 << 40
"""Longest file; disks hold those of 16 TB at most, and a plan makes a hole of that size."""

PREFIX_BYTES = 100_000
"""Fetched first of a weight file: nearly every header fits."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a commit, as the hub lists it."""

    name: str
    size: int
    digest: str
    """`sha256:` of a large file, `git:` (the blob id) of a small one."""


@dataclass(slots=True)
class Patience:
    """Attempts that may fail a few times in a row, with waits between them."""

    where: str
    limit: int
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the work is given up elsewhere; ends waits."""
    failures: int = 0

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Calls once; what may pass is waited out and gives None, anything else is a SourceError."""
        try:
            return call()
        # the type's name only: the text of such an error may hold a signed address
        except httpx.RequestError as exc:
            self.wait(f"connection failed ({type(exc).__name__})")
        except HfHubHTTPError as exc:
            if exc.response.status_code not in PASSING:
                raise _describe_refusal(self.where, exc) from None
            self.wait(f"HTTP {exc.response.status_code}", _read_requested_wait(exc.response))
        except OfflineModeIsEnabled:
            raise SourceError(f"{self.where}: HF_HUB_OFFLINE is set; unset it, or use a local path") from None
        except (ValueError, httpx.InvalidURL) as exc:
            raise SourceError(
                f"{self.where}: the answer is not a hub's ({type(exc).__name__}); check repo and HF_ENDPOINT"
            ) from None
        return None

    def until_done(self, call: Callable[[], T]) -> T:
        """Repeats `call` until it succeeds or patience ends."""
        while (value := self.attempt(call)) is None:
            pass
        return value

    def wait(self, why: str, seconds: float | None = None) -> None:
        """Counts a failure and waits; too many in a row, or too long a wait, is a SourceError."""
        # failures in a row: a download that gets new bytes sets them back to 0
        self.failures += 1
        if self.failures >= self.limit:
            raise SourceError(
                f"{self.where}: {why}, {self.failures} times in a row; check the network and run again: "
                "downloaded parts are kept"
            )
        # A hub may ask for hours; the user decides then, and partial files are kept.
        if (seconds or 0) > LONGEST_WAIT_S:
            raise SourceError(f"{self.where}: {why}, the hub asks to wait {seconds:g} s; run again later")
        if self.stop.wait(min(8.0, 0.25 * 2**self.failures) if seconds is None else seconds):
            raise SourceError(f"{self.where}: stopped because another file failed")


def _read_requested_wait(response: httpx.Response) -> float | None:
    """Seconds that the hub asks to wait, from Retry-After or its RateLimit header."""
    after = response.headers.get("retry-after", "")
    reset = re.search(r"\bt\s*=\s*(\d+)", response.headers.get("ratelimit", ""))
    return float(after) if after.isdecimal() else float(reset[1]) if reset else None


def _describe_refusal(where: str, exc: HfHubHTTPError) -> SourceError:
    status = exc.response.status_code
    # before the status: terms that must be accepted have a remedy of their own
    if isinstance(exc, GatedRepoError):
        return SourceError(
            f"{where}: access is gated; accept the terms on its page and log in with `hf auth login`"
        )
    if status in (401, 403):
        return SourceError(
            f"{where}: not found or no access (HTTP {status}); check the name, log in with `hf auth login`"
        )
    if status == 404:
        return SourceError(f"{where}: not on the hub (HTTP 404); check repo and revision")
    return SourceError(f"{where}: the hub answers HTTP {status}; check repo and revision")


def listing(remote: Remote, attempts: int = ATTEMPTS) -> list[RemoteFile]:
    """Returns the wanted files of a model's commit, all of a dataset's; asked once, then cached."""
    saved = remote.directory / "listing.json"
    if saved.exists():
        return [RemoteFile(**fields) for fields in json.loads(saved.read_bytes())]
    api = HfApi(endpoint=remote.address)
    ask: Callable[..., Any] = api.model_info if remote.kind == "model" else api.dataset_info
    info = Patience(remote.where, attempts).until_done(
        lambda: ask(remote.repo, revision=remote.revision, files_metadata=True, timeout=30)
    )
    # everything in the cache and the key rests on the commit that was asked for
    if info.sha != remote.revision:
        raise SourceError(
            f"{remote.where}: commit {remote.revision} expected, {info.sha} answered; check revision"
        )
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = check_names(siblings, remote.where) if remote.kind == "model" else sorted(siblings)
    files = []
    for name in names:
        # names come from the hub and become paths in the cache
        if name.startswith("/") or ".." in name.split("/"):
            raise SourceError(f"{remote.where}: {name!r} is listed, which leads out of the repository")
        size, lfs, blob = siblings[name].size, siblings[name].lfs, siblings[name].blob_id
        # refused now: after the download there would be nothing to compare with
        if size is None or (lfs is None and blob is None):
            raise SourceError(
                f"{remote.where}: {name} is listed without size and digest; it cannot be verified"
            )
        if not 0 <= size <= MAX_FILE_BYTES:
            raise SourceError(f"{remote.where}: {name} is listed with {size:,} bytes, which no file has")
        files.append(RemoteFile(name, size, f"sha256:{lfs.sha256}" if lfs else f"git:{blob}"))
    if remote.kind == "model":
        require_sizes(f"{remote.where}: ", {file.name: file.size for file in files})
    # before the listing, whose presence says that all is there
    _write_file(remote.directory / NAMES, json.dumps(sorted(siblings)).encode())
    _write_file(saved, json.dumps([asdict(file) for file in files]).encode())
    return files


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).rename(path)


@contextmanager
def get(remote: Remote, name: str, start: int = 0, end: int | None = None) -> Iterator[httpx.Response]:
    """Opens a file of the commit, from byte `start` to `end`, both included; the answer may hold more."""
    # `identity`: with compression, byte ranges and sizes would count compressed bytes.
    headers = build_hf_headers(library_name="enginery") | {"accept-encoding": "identity"}
    if start or end is not None:
        headers["range"] = f"bytes={start}-{'' if end is None else end}"
    url = hf_hub_url(
        remote.repo, name, repo_type=remote.kind, revision=remote.revision, endpoint=remote.address
    )
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        hf_raise_for_status(response)
        yield response


def digest(path: Path, like: str) -> str:
    """Returns the digest of a file, of the kind that `like` is: `sha256:` or `git:` (a blob id)."""
    kind = like.partition(":")[0]
    # The hub lists no sha256 of small files, only the id of their git blob: SHA-1 of a header and the bytes.
    hasher = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        while data := file.read(1 << 20):
            hasher.update(data)
    return f"{kind}:{hasher.hexdigest()}"


def mismatch(remote: Remote, file: RemoteFile, received: str) -> SourceError:
    """Says that a file is not the one of the commit."""
    return SourceError(
        f"{remote.where}: {file.name}: {file.digest} expected, {received} found; "
        "the hub or something on the way serves other bytes: run again, or check the hub's address"
    )


def fetch_headers(remote: Remote, directory: Path) -> None:
    """Makes `directory`: `config.json`, the index, weight files with headers and a hole for the rest."""
    names = ("config.json", INDEX)
    files = [f for f in listing(remote, PLAN_ATTEMPTS) if f.name in names or f.name.endswith(".safetensors")]
    draft = Path(tempfile.mkdtemp(dir=remote.directory))
    try:
        with ThreadPoolExecutor(HEADER_STREAMS) as pool:
            # `list` waits, and raises what a thread raised
            list(pool.map(lambda file: _fetch_header(remote, file, draft / file.name), files))
        # without the mark, the hole would be read as weights of zeros
        (draft / HEADERS_ONLY).touch()
        # One rename publishes the directory complete; a concurrent plan may have published it first.
        draft.rename(directory)
    except OSError as exc:
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # somebody else made it
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fetch_header(remote: Remote, file: RemoteFile, target: Path) -> None:
    patience = Patience(f"{remote.where}: {file.name}", PLAN_ATTEMPTS)
    if not file.name.endswith(".safetensors"):
        if file.size > MODEL.nbytes:
            raise SourceError(
                f"{remote.where}: {file.name} has {file.size} bytes; at most {MODEL.nbytes} are read"
            )
        target.write_bytes(patience.until_done(lambda: read(remote, file.name, file.size)))
        # a whole file, so it can be verified; a header alone has no digest
        if (received := digest(target, file.digest)) != file.digest:
            raise mismatch(remote, file, received)
        return
    prefix = patience.until_done(lambda: read(remote, file.name, min(file.size, PREFIX_BYTES)))
    end = header_end(prefix)
    if len(prefix) < end <= min(file.size, MAX_HEADER_BYTES):
        prefix = patience.until_done(lambda: read(remote, file.name, end))
    target.write_bytes(prefix[:end])
    # lengthens the file without writing: offsets in the header must lie within its size
    os.truncate(target, file.size)


def read(remote: Remote, name: str, count: int) -> bytes:
    """Returns the first bytes of a file of the commit."""
    data = b""
    if count:
        with get(remote, name, 0, count - 1) as response:
            for piece in response.iter_bytes():
                data += piece
                # a server that ignores the range sends the whole file
                if len(data) >= count:
                    break
        if len(data) < count:
            # a type that `Patience` takes for a failed attempt
            raise httpx.ReadError(f"{len(data)} of {count} bytes")
    return data[:count]
