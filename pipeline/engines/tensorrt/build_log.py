"""Reads the log of `trtllm-build`, line by line: phases, memory, kernels left out, warnings, errors.

The lines are those of public logs of TensorRT-LLM 0.9 to 1.0 (github.com/NVIDIA/TensorRT-LLM issue 493; build
logs that users published of 0.20.0 and 1.0.0) and of `builder.py` and `commands/build.py` of 0.16.0. A line
that a version words differently is missing from the report, and never stops a build.
"""

import re
from collections import Counter
from typing import Any

LINE = re.compile(r"\[(TRT|TRT-LLM)\] (?:\[RANK \d+\] )?\[(V|I|W|E|F)\] (.*)")
"""`[08/27/2025-08:22:30] [TRT] [I] ...`; some versions name the MPI rank."""

VERSION = re.compile(r"\[TensorRT-LLM\] TensorRT-LLM version: (\S+)")

PHASES = {
    "network": re.compile(r"Total time of constructing network from module object ([\d.]+) seconds"),
    "weights": re.compile(r"Total time to initialize the weights in network .*: (\d+:\d+:\d+)"),
    "kernels": re.compile(r"Engine generation completed in ([\d.]+) seconds"),
    # The last line of all has the same beginning, and is no rank's.
    "engine": re.compile(r"Total time of building (?!all engines).*: (\d+:\d+:\d+)"),
    "serialization": re.compile(r"Engine serialized\. Total time: (\d+:\d+:\d+)"),
    "all": re.compile(r"Total time of building all engines: (\d+:\d+:\d+)"),
}
"""Phase of one rank -> its line; `kernels` is TensorRT's own part of `engine`, `all` is the whole command."""

MEMORY = {
    "activation_bytes": (re.compile(r"Total Activation Memory: (\d+) bytes"), 1),
    "scratch_bytes": (re.compile(r"Max Scratch Memory: (\d+) bytes"), 1),
    "weights_bytes": (re.compile(r"Total Weights Memory: (\d+) bytes"), 1),
    "peak_host_bytes": (re.compile(r"Build phase peak memory: ([\d.]+) MB"), 1 << 20),
    "peak_gpu_bytes": (
        re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU .* GPU (\d+) MiB"),
        1 << 20,
    ),
}
"""Figure -> its line and unit; the largest of all ranks counts."""

SKIPPED = re.compile(r"[Ss]kipping tactic .*insufficient memory on requested size of (\d+)")
ENTRIES = re.compile(r"Serialized (\d+) timing cache entries")
OUT_OF_MEMORY = re.compile(r"OutOfMemory|out of memory|Out of memory", re.ASCII)

MARKS = ("network", "weights", "engine", "serialization")
"""Phases that progress counts, once per rank."""


class BuildLog:
    """Hears lines and adds them up."""

    def __init__(self) -> None:
        self.version = ""
        """Version in the builder's banner."""
        self.phases: dict[str, list[float]] = {name: [] for name in PHASES}
        self.memory: dict[str, int] = {}
        self.skipped: list[int] = []
        """Memory that each kernel left out would have needed, bytes."""
        self.cache_entries = 0
        self.warnings: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.out_of_memory = False

    def on_line(self, line: str) -> None:
        """Takes one line of the log."""
        if banner := VERSION.search(line):
            self.version = banner.group(1)
        # In any line: not only TensorRT's own say that memory ran out.
        self.out_of_memory |= OUT_OF_MEMORY.search(line) is not None
        match = LINE.search(line)
        if match is None:
            return
        level, text = match.group(2), match.group(3).strip()
        if level == "W":
            self._warning(text)
        elif level in ("E", "F"):
            self.errors[text] += 1
        else:
            self._figure(text)

    @property
    def marks(self) -> int:
        """Phases finished, of all ranks."""
        return sum(len(self.phases[name]) for name in MARKS)

    def _warning(self, text: str) -> None:
        if skipped := SKIPPED.search(text):
            self.skipped.append(int(skipped.group(1)))
        else:
            self.warnings[text] += 1

    def _figure(self, text: str) -> None:
        for name, pattern in PHASES.items():
            if match := pattern.search(text):
                self.phases[name].append(_seconds(match.group(1)))
        for name, (pattern, unit) in MEMORY.items():
            if match := pattern.search(text):
                self.memory[name] = max(self.memory.get(name, 0), round(float(match.group(1)) * unit))
        if match := ENTRIES.search(text):
            self.cache_entries = max(self.cache_entries, int(match.group(1)))

    def report(self) -> dict[str, Any]:
        """Everything as JSON; seconds of each phase in the order in which ranks finished it."""
        return {
            "version": self.version,
            "phases_s": {name: times for name, times in self.phases.items() if times},
            "memory": self.memory,
            "skipped_tactics": {"count": len(self.skipped), "largest_bytes": max(self.skipped, default=0)},
            "timing_cache_entries": self.cache_entries,
            "warnings": dict(self.warnings),
            "errors": dict(self.errors),
        }


def _seconds(text: str) -> float:
    """Seconds of `2.37` or of `00:00:08`."""
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total
