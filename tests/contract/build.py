"""trtllm-build of the contract toolchain: parses the options of its version, checks, rewrites, "builds", logs.

The option table is the one that the package ships. What the loader wants of a checkpoint (checkpoint.py) and
what the builder changes without a word (rewrites.py) are written here from the sources of TensorRT-LLM a second
time, so that neither side can hide the other's mistake. Standard library only, to start quickly.
"""

import argparse
import json
import os
import signal
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.contract import checkpoint, rewrites
from tests.contract.log import say
from tests.present import present

ROOT = Path(sys.argv[0]).parents[1]
BEHAVIOUR: dict[str, Any] = json.loads((ROOT / "behaviour.json").read_text())
INSTALLED = metadata.version("tensorrt_llm")
VERSION = BEHAVIOUR["reported_version"] or INSTALLED
TABLES = Path(__file__).resolve().parents[2] / "pipeline" / "engines" / "tensorrt" / "capabilities"


def table() -> dict[str, Any]:
    """The option table that serves the installed version."""
    documents = [json.loads(file.read_text()) for file in sorted(TABLES.glob("*.json"))]
    number = ".".join(INSTALLED.split(".")[:2])
    serving = [one for one in documents if one["snapshot"] == INSTALLED or number in one["releases"]]
    exact = [one for one in serving if one["snapshot"] == INSTALLED]
    return (exact or serving)[-1]["options"]


def parser(options: dict[str, Any]) -> argparse.ArgumentParser:
    """The command line of the version; argparse refuses everything else with exit code 2."""
    made = argparse.ArgumentParser(prog="trtllm-build")
    for name, option in options.items():
        names = [f"--{name}", *(f"--{alias}" for alias in option.get("aliases", ()))]
        default = option.get("default")
        if option["type"] == "flag":
            made.add_argument(*names, dest=name, action="store_true")
            continue
        kind = int if option["type"] == "int" else str
        choices = ["enable", "disable"] if option["type"] == "switch" else option.get("choices")
        nargs = "+" if option.get("many") else None
        made.add_argument(*names, dest=name, type=kind, choices=choices, default=default, nargs=nargs)
    return made


def main() -> None:
    print(f"[TensorRT-LLM] TensorRT-LLM version: {VERSION}", flush=True)
    options = table()
    arguments = vars(parser(options).parse_args())
    directory = Path(arguments["checkpoint_dir"])
    config = json.loads((directory / "config.json").read_text())
    started = time.monotonic()
    built = rewrites.build_config(arguments, options, config, INSTALLED)
    config = {**config, "logits_dtype": arguments["logits_dtype"] or config["logits_dtype"]}
    if BEHAVIOUR["shrunk_batch"]:
        built["max_batch_size"] = min(built["max_batch_size"], BEHAVIOUR["shrunk_batch"])
    out = Path(arguments["output_dir"])
    out.mkdir(parents=True, exist_ok=True)
    run = Run(arguments, config, built, out)
    ranks, size = range(config["mapping"]["world_size"]), int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))
    if size > 1:
        mine = int(os.environ["OMPI_COMM_WORLD_RANK"])
        failed = [rank for rank in ranks if rank % size == mine and not run.attempt(rank)]
    else:
        workers = min(BEHAVIOUR["gpus"], arguments["workers"])
        failed = serial(run, ranks) if workers == 1 else parallel(run, ranks, workers)
    if failed:
        print("AssertionError: Engine building failed, please check error log.", file=sys.stderr)
        sys.exit(1)
    say("TRT-LLM", "I", f"Total time of building all engines: {clock(time.monotonic() - started)}")


def serial(run: "Run", ranks: range) -> list[int]:
    """One rank after another in this process, ended by the first failure."""
    for rank in ranks:
        run.rank(rank)
    return []


def parallel(run: "Run", ranks: range, workers: int) -> list[int]:
    """As many processes at once as workers; the others go on when one fails."""
    waiting, failed = list(ranks), list[int]()
    running: dict[int, int] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            rank = waiting.pop(0)
            pid = os.fork()
            if pid == 0:
                os._exit(0 if run.attempt(rank) else 1)
            running[pid] = rank
        pid, status = os.wait()
        rank = running.pop(pid)
        if os.WIFSIGNALED(status):
            print("concurrent.futures.process.BrokenProcessPool: A process in the process pool was "
                  "terminated abruptly while the future was running or pending.", file=sys.stderr)  # fmt: skip
        if status:
            failed.append(rank)
    return failed


class Run:
    """One call: what was asked, and what is built."""

    def __init__(
        self, arguments: dict[str, Any], config: dict[str, Any], built: dict[str, Any], out: Path
    ) -> None:
        self.arguments, self.config, self.built, self.out = arguments, config, built, out

    def attempt(self, rank: int) -> bool:
        """Builds a rank in a process of its own; a failure is printed."""
        try:
            self.rank(rank)
        except (AssertionError, KeyError, OSError, RuntimeError, TypeError) as exc:
            print(f"{type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
            return False
        return True

    def rank(self, rank: int) -> None:
        """Loads, "builds" and writes one rank."""
        source = Path(self.arguments["checkpoint_dir"]) / f"rank{rank}.safetensors"
        checkpoint.check(Path(self.arguments["checkpoint_dir"]), self.config, rank, INSTALLED)
        say("TRT-LLM", "I", "Total time of constructing network from module object 0.25 seconds")
        say("TRT-LLM", "I", "Total time to initialize the weights in network Unnamed Network 0: 00:00:00")
        time.sleep(BEHAVIOUR["seconds_per_rank"])
        self._fail(rank)
        entries = self._tactics(rank)
        for number in range(BEHAVIOUR["skipped_tactics"]):
            say("TRT", "W", f"UNSUPPORTED_STATESkipping tactic {number} due to insufficient memory on requested "
                f"size of {66048 * (number + 1)} detected for tactic 0x000000000000001f.")  # fmt: skip
        say("TRT", "I", "Total Activation Memory: 503420928 bytes")
        say("TRT", "I", f"Total Weights Memory: {source.stat().st_size} bytes")
        say("TRT", "I", "Engine generation completed in 0.5 seconds.")
        say(
            "TRT",
            "I",
            "[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 0 MiB, GPU 385 MiB",
        )
        say("TRT-LLM", "I", "Total time of building Unnamed Network 0: 00:00:01")
        if rank == 0:
            self._save_cache(entries)
        say("TRT-LLM", "I", "Build phase peak memory: 6978.95 MB, children: 12049.21 MB")
        if rank == BEHAVIOUR["silent_rank"]:
            return
        target = self.out / f"rank{rank}.engine"
        say("TRT-LLM", "I", f"Serializing engine to {target}...")
        # A real plan holds no path; `config.json` beside it says where the caches were.
        built = {name: value for name, value in self.built.items() if not name.endswith("timing_cache")}
        header = {"rank": rank, "version": VERSION, "gpu": BEHAVIOUR["gpu"],
                  "tensorrt": metadata.version("tensorrt"), "build_config": built}  # fmt: skip
        target.write_bytes(json.dumps(header).encode() + b"\n" + source.read_bytes())
        if rank == 0:
            whole = {"version": VERSION, "pretrained_config": self.config, "build_config": self.built}
            (self.out / "config.json").write_text(json.dumps(whole, indent=4))
        say("TRT-LLM", "I", "Engine serialized. Total time: 00:00:00")

    def _fail(self, rank: int) -> None:
        if rank == BEHAVIOUR["killed_rank"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == BEHAVIOUR["out_of_memory_rank"]:
            say("TRT", "W", "Requested amount of GPU memory (2833252352 bytes) could not be allocated. There may "
                "not be enough free memory for allocation to succeed.")  # fmt: skip
            say("TRT", "E", "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (Requested "
                "size was 2833252352 bytes.)")  # fmt: skip
            raise AssertionError("Engine building failed, please check the error log.")
        if rank == BEHAVIOUR["failing_rank"]:
            say(
                "TRT",
                "E",
                "Error Code 10: Internal Error (Could not find any implementation for node mlp/fc.)",
            )
            raise AssertionError("Engine building failed, please check the error log.")

    def _tactics(self, rank: int) -> set[str]:
        """Times what the cache does not know; a cache of another GPU or version is dropped without a word."""
        name = self.arguments.get("input_timing_cache") or self.arguments.get("timing_cache")
        known: set[str] = set()
        if name and Path(name).is_file():
            cache = json.loads(Path(name).read_text())
            if (cache["gpu"], cache["tensorrt"]) == (BEHAVIOUR["gpu"], metadata.version("tensorrt")):
                known = set(cache["entries"])
        elif name:
            say(
                "TRT-LLM", "W", f"Loading timing cache failed: {name} not found, so start with an empty cache"
            )
        wanted = checkpoint.gemms(self.config, rank)
        say("TRT", "V", f"Timed {len(wanted - known)} layers; {len(wanted & known)} are in the timing cache")
        return known | wanted

    def _save_cache(self, entries: set[str]) -> None:
        name = self.arguments.get("output_timing_cache") or self.arguments.get("timing_cache")
        cache = {
            "gpu": BEHAVIOUR["gpu"],
            "tensorrt": metadata.version("tensorrt"),
            "entries": sorted(entries),
        }
        Path(present(name)).write_text(json.dumps(cache))
        say("TRT", "I", f"Serialized {len(entries)} timing cache entries")
        say("TRT-LLM", "I", f"Timing cache serialized to {name}")


def clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))
