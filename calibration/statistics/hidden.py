"""Hidden states between two layers: in files that survive kill -9, and on a GPU also in its memory.

A layer reads one set of files and writes the other, so that its inputs are complete until it is committed.
Files are written with pwrite: once it returns, the page cache has the bytes, and they survive the death of
the process. They are not synced, so they do not survive a loss of power.

If a GPU holds all states, the files are only for resuming an interrupted pass. Writing them slows the host
down (0.1 s per GB, measured on one H200), so then outputs are saved only every SAVE_EVERY_S seconds.
"""

import os
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from calibration.statistics.weight_reading import read_into

SHARDS = 4
"""Files per set, with batches in turn: a file has one writer at a time, a fast GPU needs several."""
SAVE_EVERY_S = 2.0
"""Work that an interruption may cost, where a GPU holds all states."""
STAGED = 4
"""Batches that may wait in pinned memory to be written, on a GPU's host."""


class Inline(Executor):
    """An executor that runs every call at once in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Runs it and returns its outcome."""
        outcome: Future[Any] = Future()
        outcome.set_result(fn(*args, **kwargs))
        return outcome


class HiddenStates:
    """Inputs of one layer and of the next, batch by batch."""

    def __init__(
        self,
        folder: Path,
        shapes: list[tuple[int, ...]],
        dtype: torch.dtype,
        device: torch.device,
        *,
        resident: bool,
    ) -> None:
        self.folder, self.shapes, self.dtype, self.device = folder, shapes, dtype, device
        self.held: list[torch.Tensor | None] | None = [None] * len(shapes) if resident else None
        """Batches on the GPU, each replaced by the next layer's; None where only files hold them."""
        self.batch_bytes = _nbytes(shapes[0], dtype)
        self.keeping = not resident
        """Whether `put` writes to the files."""
        self._kept_layer, self._kept_at = 0, time.monotonic()
        on_gpu = device.type == "cuda"
        self._writers: Executor = ThreadPoolExecutor(SHARDS) if on_gpu else Inline()
        self._committer: Executor = ThreadPoolExecutor(1) if on_gpu else Inline()
        self._ahead = ThreadPoolExecutor(1)
        self._writes: list[Future[None]] = []
        self._committed: Future[None] | None = None
        self._staging: queue.SimpleQueue[torch.Tensor] = queue.SimpleQueue()
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._fetch = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        for _ in range(STAGED if on_gpu else 0):
            self._staging.put(torch.empty(self.batch_bytes, dtype=torch.uint8, pin_memory=True))

    def take_up(self, layer: int) -> bool:
        """Resume at a layer whose inputs an earlier pass saved; return whether its files are complete."""
        self._kept_layer = layer
        sizes = [0] * SHARDS
        for batch, shape in enumerate(self.shapes):
            _, offset = self._place(layer, batch)
            sizes[batch % SHARDS] = offset + _nbytes(shape, self.dtype)
        paths = [self._path(layer, shard) for shard in range(SHARDS)]
        return all(
            size == 0 or (path.is_file() and path.stat().st_size >= size)
            for path, size in zip(paths, sizes, strict=True)
        )

    def begin(self, layer: int, *, last: bool) -> None:
        """Begin a layer: decide whether its outputs, the inputs of the next layer, are saved.

        The files of the last saved layer must stay complete until the new ones are, so outputs go to the
        other set, and only after the previous commit.
        """
        if self.held is None or last:
            self.keeping = self.held is None
            return
        settled = self._committed is None or self._committed.done()
        # There are two sets of files, for even and for odd layers; the set of the last saved layer is still
        # needed.
        other_side = (layer + 1 - self._kept_layer) % 2 == 1
        # Saving every layer would bind a fast GPU to the disk.
        self.keeping = settled and other_side and time.monotonic() - self._kept_at > SAVE_EVERY_S
        if self.keeping:
            self._kept_layer = layer + 1

    def inputs(self, layer: int) -> Iterator[torch.Tensor]:
        """Inputs [B, T, H] of a layer, batch by batch, the next one being read meanwhile."""
        if self.held is not None and self.held[0] is not None:
            for batch in range(len(self.shapes)):
                hidden_BTH = self.held[batch]
                assert hidden_BTH is not None
                yield hidden_BTH
            return
        self.settle()
        next_load = self._ahead.submit(self._read, layer, 0)
        for batch in range(len(self.shapes)):
            loaded_BTH, copied = next_load.result()
            if copied is not None:
                torch.cuda.current_stream(self.device).wait_event(copied)
                # The allocator then knows of the second stream, and does not hand out the memory while it
                # computes.
                loaded_BTH.record_stream(torch.cuda.current_stream(self.device))
            if batch + 1 < len(self.shapes):
                next_load = self._ahead.submit(self._read, layer, batch + 1)
            yield loaded_BTH
            del loaded_BTH

    def put(self, layer: int, batch: int, hidden_BTH: torch.Tensor) -> None:
        """Store a batch of a layer's inputs."""
        if self.held is not None:
            self.held[batch] = hidden_BTH
        if not self.keeping:
            return
        hidden_BTH = hidden_BTH.contiguous()
        if self._stream is None:
            self._write(layer, batch, hidden_BTH.view(-1).view(torch.uint8))
            return
        staging = self._staged()
        flat = staging[: hidden_BTH.nbytes]
        # The copy begins when the layer has computed the batch, and the next layer does not wait for the
        # copy.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            flat.copy_(hidden_BTH.view(-1).view(torch.uint8), non_blocking=True)
            copied = self._stream.record_event()
        # Else the caller could drop the tensor and its memory be used again before the copy has run.
        hidden_BTH.record_stream(self._stream)
        earlier_commit = self._committed
        self._writes.append(
            self._writers.submit(self._drain, layer, batch, (staging, flat, copied), earlier_commit)
        )

    def commit(self, action: Callable[[], None]) -> None:
        """Runs `action` once all that was put is in the files; on a GPU in the background."""
        writes, earlier_commit, self._writes = self._writes, self._committed, []

        def wait() -> None:
            if earlier_commit is not None:
                earlier_commit.result()
            for write in writes:
                write.result()
            action()

        if self._committed is not None and self._committed.done():
            self._committed.result()  # raises what went wrong
        self._committed, self._kept_at = self._committer.submit(wait), time.monotonic()

    def settle(self) -> None:
        """Waits for every write and commit; raises what went wrong with one."""
        for write in self._writes:
            write.result()
        if self._committed is not None:
            self._committed.result()

    def close(self) -> None:
        """Ends the threads."""
        for executor in (self._ahead, self._writers, self._committer):
            executor.shutdown(cancel_futures=True)

    def _staged(self) -> torch.Tensor:
        """A pinned buffer that is free; raises what went wrong with a write that should have freed one."""
        while True:
            try:
                # A failed writer never gives its buffer back to a waiter that does not look for failures.
                return self._staging.get(timeout=1.0)
            except queue.Empty:
                for write in self._writes:
                    if write.done():
                        write.result()

    def _drain(
        self, layer: int, batch: int, staged: tuple[Any, Any, Any], earlier_commit: "Future[None] | None"
    ) -> None:
        """Write a staged batch, after the commit of the layer that still needs the bytes it replaces."""
        staging, flat, copied = staged
        try:
            if earlier_commit is not None:
                earlier_commit.result()
            # In this thread, so that the caller goes on to launch kernels.
            copied.synchronize()
            self._write(layer, batch, flat)
        finally:
            self._staging.put(staging)

    def _write(self, layer: int, batch: int, flat: torch.Tensor) -> None:
        path, offset = self._place(layer, batch)
        view, done = flat.numpy().data, 0
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while done < len(view):
                done += os.pwrite(handle, view[done:], offset + done)
        finally:
            os.close(handle)

    def _read(self, layer: int, batch: int) -> "tuple[torch.Tensor, torch.cuda.Event | None]":
        """A batch on the device, and on a GPU the event after which it is there."""
        path, offset = self._place(layer, batch)
        shape = self.shapes[batch]
        flat = torch.empty(_nbytes(shape, self.dtype), dtype=torch.uint8, pin_memory=self._fetch is not None)
        read_into(path, offset, flat)
        hidden_BTH = flat.view(self.dtype).view(shape)
        if self._fetch is None:
            return hidden_BTH, None
        with torch.cuda.stream(self._fetch):
            return hidden_BTH.to(self.device, non_blocking=True), self._fetch.record_event()

    def _place(self, layer: int, batch: int) -> tuple[Path, int]:
        return self._path(layer, batch % SHARDS), batch // SHARDS * self.batch_bytes

    def _path(self, layer: int, shard: int) -> Path:
        return self.folder / f"hidden-{layer % 2}.{shard}.bin"


def _nbytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * dtype.itemsize
