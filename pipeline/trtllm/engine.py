"""An engine behind TensorRT-LLM's own runtime, as every runner gives it; used in child processes only.

The process that holds the engine is started when it is first needed, and ended while trtllm-bench measures:
each takes nearly all of the GPU's memory.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.backend.loaded_engine import Sampling
from pipeline.errors import SourceError
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm import figures
from pipeline.trtllm.bench import Bench, Load, run
from pipeline.trtllm.gpu_memory import Peak, used_bytes
from pipeline.trtllm.session import Session

LOGITS_BYTES = 1 << 30
"""Most memory that the context logits of one batch may take, float32; the runtime keeps them on the GPU."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the engine says about given tokens; float32 natural logarithms."""

    targets: Tensor
    """Log-probability of each target: (B, T)."""
    indices: Tensor
    """Log-probabilities of the tokens asked about: (B, T, K)."""
    top1: Tensor
    """Most likely next token: (B, T) int64."""


@dataclass(kw_only=True)
class Runtime:
    """How an engine is loaded."""

    about: Mapping[str, Any]
    """Its engine.json."""
    toolchain: Toolchain
    job: Mapping[str, Any]
    """What the worker loads."""
    mounts: Sequence[Path]
    env: Mapping[str, str] = field(default_factory=dict)
    bench: Bench | None = None
    """Set where trtllm-bench measures; else the worker times its own answers."""
    scoring: Mapping[str, Any] | None = None
    """What the worker loads for scores, where the engine itself cannot give them."""
    unscored: str = ""
    """Why nothing gives scores; empty where something does."""


class Engine:
    """A LoadedEngine; its process comes and goes with what is asked."""

    def __init__(self, runtime: Runtime, scratch: Path) -> None:
        self.runtime, self.about, self.scratch = runtime, runtime.about, scratch
        self.session: Session | None = None
        self.loaded: Mapping[str, Any] = {}
        # Before any process of ours, so that peaks count ours only.
        self.idle_bytes = used_bytes()

    def score(self, tokens: Tensor, targets: Tensor, indices: Tensor) -> Iterator[Scores]:
        """Scores sequences (S, T) batch by batch; `targets` (S, T) and `indices` (S, T, K), all int64.

        SourceError for an engine that keeps no context logits and has no twin that does.
        """
        if self.runtime.unscored:
            raise SourceError(self.runtime.unscored)
        length = tokens.shape[1]
        self._check(1, length + 1)  # the runtime makes one token of every prompt
        # Every position has a row of float32 logits, so long sequences make small batches.
        each = max(1, LOGITS_BYTES // (4 * length * self.about["vocab_size"]))
        size = min(self.about["max_batch_size"], each)
        parts = (torch.split(array, size) for array in (tokens, targets, indices))
        for part in zip(*parts, strict=True):
            yield self._score(dict(zip(("tokens", "targets", "indices"), part, strict=True)))

    def _score(self, arrays: Mapping[str, Tensor]) -> Scores:
        # As files: a worker in a container is not reached by pipes.
        files = {name: str(self.scratch / f"{name}.npy") for name in arrays}
        for name, file in files.items():
            np.save(file, arrays[name].numpy())
        out = str(self.scratch / "scores.npz")
        params: dict[str, Any] = {**files, "out": out, "vocab_size": self.about["vocab_size"]}
        # The twin takes the engine's place, and stays until something else is asked.
        self._loaded(self.runtime.scoring).call("score", **params)
        with np.load(out) as saved:
            return Scores(**{name: torch.from_numpy(saved[name]) for name in ("targets", "indices", "top1")})

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008 a frozen value
        on_tokens: Callable[[list[int | None]], None] = lambda tokens: None,
    ) -> list[list[int]]:
        """Continues prompts; `on_tokens` hears each new token, None for the requests that it is not of."""
        self._check(len(prompts), max(len(prompt) for prompt in prompts) + 1)
        room = [self.about["max_seq_len"] - len(prompt) for prompt in prompts]

        def on_event(event: Mapping[str, Any]) -> None:
            for token in event["tokens"]:
                step: list[int | None] = [None] * len(prompts)
                step[event["request"]] = token
                on_tokens(step)

        answer = self._loaded().call(
            "generate",
            on_event,
            prompts=[list(prompt) for prompt in prompts],
            num_new=[min(max_new_tokens, most) for most in room],
            temperature=sampling.temperature,
            seed=sampling.seed,
            stop=list(sampling.stop),
        )
        texts: list[list[int]] = answer["texts"]
        return texts

    def measure(self, batch: int, prompt_len: int, new_tokens: int, repeats: int) -> dict[str, float]:
        """Times greedy answers to random prompts, after one run that is not counted; peak memory of GPUs."""
        self._check(batch, prompt_len + new_tokens)
        load = Load(
            batch=batch,
            prompt_len=prompt_len,
            new_tokens=new_tokens,
            repeats=repeats,
            vocab_size=self.about["vocab_size"],
        )
        if self.runtime.bench is not None:
            # trtllm-bench loads the model itself, and there is no room for two.
            self.close()
            with Peak(self.idle_bytes) as peak:
                speeds = run(self.runtime.bench, load, self.scratch)
        else:
            session = self._loaded()
            with Peak(self.idle_bytes) as peak:
                speeds = figures.of_runs(_timed(session, load))
        return {**speeds, "peak_memory_bytes": peak.bytes}

    def close(self) -> None:
        """Ends the engine's process, if it runs."""
        if self.session is not None:
            # Forgotten first: whatever happens while it ends, it is not ended twice.
            session, self.session = self.session, None
            session.__exit__(None, None, None)

    def abandon(self) -> None:
        """Kills the engine's process, if it runs."""
        if self.session is not None:
            session, self.session = self.session, None
            session.stop()

    def _loaded(self, twin: Mapping[str, Any] | None = None) -> Session:
        """The process that holds the engine, or its twin that is scored; there is room for one of them."""
        runtime = self.runtime
        job = twin or runtime.job
        if self.loaded is not job:
            self.close()
        if self.session is None:
            mounts = (self.scratch, *runtime.mounts)
            self.session = Session(runtime.toolchain, job, mounts, runtime.env).__enter__()
            self.loaded = job
        return self.session

    def _check(self, batch: int, length: int) -> None:
        for name, size in (("max_batch_size", batch), ("max_seq_len", length)):
            if size > self.about[name]:
                raise SourceError(f"{name}: {size} is asked for, the engine is built for {self.about[name]}")


def _timed(session: Session, load: Load) -> list[dict[str, Any]]:
    """Runs the load once for nothing, then as often as asked."""
    random = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, load.vocab_size, (load.batch, load.prompt_len), generator=random).tolist()
    runs = [
        session.call("measure", prompts=prompts, num_new=load.new_tokens) for _ in range(load.repeats + 1)
    ]
    return runs[1:]


@contextmanager
def opened(make: Callable[[Path], Runtime]) -> Iterator[Engine]:
    """An engine for the block; `make` gets a directory that exists as long."""
    # A container's user may leave files that are not ours to remove.
    with tempfile.TemporaryDirectory(prefix="enginery-engine-", ignore_cleanup_errors=True) as scratch:
        engine = Engine(make(Path(scratch)), Path(scratch))
        try:
            yield engine
        except BaseException:
            # Killed and not asked to stop: after a failure it may not answer, or not for long.
            engine.abandon()
            raise
        engine.close()


def description(directory: Path) -> dict[str, Any]:
    """The engine's engine.json."""
    about: dict[str, Any] = json.loads((directory / "engine.json").read_text())
    return about
