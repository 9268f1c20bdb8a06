"""Runs an engine of the PyTorch backend: its checkpoint, its options and its autotuner cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipeline.engines.trtllm_torch import autotuner
from pipeline.engines.trtllm_torch.served_options import OPTIONS
from pipeline.engines.trtllm_torch.torch_settings import DRAFT
from pipeline.errors import BackendUnavailable
from pipeline.process import host
from pipeline.process.host import Host
from pipeline.toolchains.discovery import matching
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm.bench import Bench
from pipeline.trtllm.engine import Engine, Runtime, description, opened
from pipeline.trtllm.host_check import mismatches
from pipeline.trtllm.session import AUTOTUNER_CACHE

CHECKPOINT = "checkpoint"
TUNING = "tuning"


@contextmanager
def load(directory: Path) -> Iterator[Engine]:
    """Loads an engine with a toolchain of this host; BackendUnavailable where it cannot be loaded here."""
    toolchain = matching(description(directory)["toolchain"])
    require(directory, host.probe(), toolchain)
    with opened(lambda scratch: runtime(directory, toolchain, scratch)) as engine:
        yield engine


def require(directory: Path, this_host: Host, toolchain: Toolchain) -> None:
    """Raises BackendUnavailable with every reason why the engine must not be loaded here."""
    about = description(directory)
    problems = mismatches(about, this_host, toolchain)
    tuned_for = autotuner.read_identity(directory / TUNING)
    # With other problems there may be no GPU to compare with.
    if tuned_for is not None and not problems:
        now = {
            **tuned_for,
            "gpu": this_host.gpus[0].name,
            "sm": this_host.gpus[0].sm,
            "tensorrt_llm": toolchain.version,
        }
        now |= {"world_size": about["world_size"], "key": about["tuning_key"]}
        reason = autotuner.stale(tuned_for, now)
        problems += [f"autotuner cache: {reason}"] if reason else []
    if problems:
        raise BackendUnavailable("\n  ".join([f"{directory} cannot be loaded here", *problems]))


def runtime(directory: Path, toolchain: Toolchain, scratch: Path) -> Runtime:
    """How the engine is loaded; the library gets copies of what it may write to."""
    options = absolute(yaml.safe_load((directory / OPTIONS).read_text()), directory)
    env = {}
    if autotuner.cache_files(directory / TUNING):
        # The library writes to the file that it reads, and a published engine never changes.
        autotuner.copy(directory / TUNING, scratch / TUNING)
        env[AUTOTUNER_CACHE] = str(scratch / TUNING / autotuner.FILE)
    file = scratch / OPTIONS
    file.write_text(yaml.safe_dump(options))
    mounts = (directory, scratch)
    return Runtime(
        about=description(directory),
        toolchain=toolchain,
        job={"kind": "pytorch", "model": str(directory / CHECKPOINT), "options": options},
        mounts=mounts,
        env=env,
        bench=Bench(
            toolchain=toolchain,
            checkpoint=directory / CHECKPOINT,
            options=file,
            settings=options,
            env=env,
            mounts=mounts,
        ),
    )


def absolute(options: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The options with the engine's own draft model where it is on this host."""
    speculative = options.get("speculative_config") or {}
    if speculative.get("speculative_model_dir") != DRAFT:
        return options
    return {
        **options,
        # Stored as a bare name, because the engine's directory differs between hosts.
        "speculative_config": {**speculative, "speculative_model_dir": str(directory / DRAFT)},
    }
