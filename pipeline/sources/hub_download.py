"""Downloads the files of a hub commit into a cache, resuming, and verifies every one of them.

Not `hf_hub_download`: it drops what it has of a file when the connection is reset or the process dies
(huggingface_hub 1.33), and a weight file is gigabytes.
"""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from artifacts.store import lock
from pipeline.process.meter import Progress
from pipeline.sources.hub import ATTEMPTS, Patience, RemoteFile, digest, get, mismatch
from pipeline.sources.snapshot import Remote

STREAMS = 4
"""Files fetched at once."""


def fetch(remote: Remote, files: list[RemoteFile], progress: Progress) -> list[Path]:
    """Downloads files into the cache, going on where an earlier run stopped; returns them, each verified now.

    A file that differs from its digest is fetched once more, then a SourceError.
    """
    directory, total = remote.directory / "files", sum(file.size for file in files)
    directory.mkdir(parents=True, exist_ok=True)
    # every name is there before the threads start: they only replace values
    received = dict.fromkeys((file.name for file in files), 0)
    stop = threading.Event()
    with (
        _lock_commit(directory, lambda: progress(0, total, "bytes fetched")),
        ThreadPoolExecutor(STREAMS) as pool,
    ):
        jobs = [pool.submit(_Download(remote, file, received, stop).run) for file in files]
        try:
            while True:
                done, pending = wait(jobs, 0.5, FIRST_EXCEPTION)
                failed = [job for job in done if job.exception() is not None]
                progress(sum(received.values()), total, "bytes fetched")
                if failed or not pending:
                    break
        finally:
            # wakes threads that wait between attempts; also after Ctrl-C
            stop.set()
            pool.shutdown(cancel_futures=True)
    return [job.result() for job in failed or jobs]


@contextmanager
def _lock_commit(directory: Path, tick: Callable[[], None]) -> Iterator[None]:
    """Waits until no other process works on this commit: two would write the same unfinished files."""
    watch = lock.Watch(directory.parent / "lock", None, lock.PATIENCE_S)
    with watch.path.open("w") as lock_file:
        while True:
            try:
                # the kernel releases it with the process, so a crash leaves no stale lock
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tick()
                watch.look("another process, which downloads the same commit")
                time.sleep(0.5)
        yield


@dataclass(frozen=True, slots=True)
class _Download:
    """One file on its way into the cache."""

    remote: Remote
    file: RemoteFile
    held: dict[str, int]
    """Bytes of each file that are there, shared with the one who reports progress."""
    stop: threading.Event

    @property
    def path(self) -> Path:
        return self.remote.directory / "files" / self.file.name

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    def run(self) -> Path:
        """Returns the finished file; its bytes have the listed digest."""
        # A second attempt from zero: a partial file of an earlier run may hold bytes of another mirror.
        for _ in range(2):
            if not self.path.exists():
                self._download_rest()
            # also of a file that was there already: the cache may have been damaged since
            received = digest(self.path, self.file.digest)
            if received == self.file.digest:
                self.held[self.file.name] = self.file.size
                return self.path
            self.path.unlink()
        raise mismatch(self.remote, self.file, received)

    def _download_rest(self) -> None:
        patience = Patience(f"{self.remote.where}: {self.file.name}", ATTEMPTS, self.stop)
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.touch()
        # the length of the part is all the state there is: what a killed run wrote counts
        most = size = self.held[self.file.name] = self.part.stat().st_size
        while size != self.file.size:
            # bytes of something else: only a new start can help
            if size > self.file.size:
                self.part.unlink()
            failures = patience.failures
            patience.attempt(self._append_missing)
            size = self.part.stat().st_size
            if size > most:
                most, patience.failures = size, 0
            # The request succeeded without new bytes: count it as a failure, or this would loop for ever.
            elif patience.failures == failures:
                patience.wait(f"{size} of {self.file.size} bytes and no more")
        self.part.rename(self.path)

    def _append_missing(self) -> int:
        """Asks for what is missing and writes what comes; the connection may end before the file does."""
        with self.part.open("ab") as part, get(self.remote, self.file.name, part.tell()) as response:
            # A server may ignore the range and send the whole file: appending that would corrupt it.
            if not response.headers.get("content-range", "").startswith(f"bytes {part.tell()}-"):
                part.seek(0)  # the whole file comes
                part.truncate()
            for data in response.iter_bytes():
                part.write(data)
                self.held[self.file.name] = part.tell()
                # a body longer than listed could fill the disk
                if self.stop.is_set() or part.tell() > self.file.size:
                    break
        # not None, which `attempt` returns for a failure
        return 1
