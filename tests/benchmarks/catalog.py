"""What 10,000 versions cost `enginery ls` and `find`, beyond what the same command costs on a registry of one.

Takes the URL of an empty PostgreSQL database to measure there too: `python -m tests.benchmarks.catalog URL`.
"""

import resource
import shutil
import subprocess  # noqa: TID251 runs the command line as a user would
import sys
import time
from collections.abc import Callable
from pathlib import Path

from artifacts.registry.registry import Registry, open_registry
from tests.benchmarks.many_versions import fill

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / ".bench" / "catalog"
VERSIONS, NAMES = 10_000, 200
RUNS = 5

COMMANDS = {
    "ls": ("ls",),
    "ls NAME": ("ls", "team0/model0/build0"),
    "find, every version suits": ("find", "--any-host"),
    "find, none suits this host": ("find", "--gpu", "b200"),
    "find --model ... --slo ...": (
        *("find", "--model", "team/model3", "--gpu", "h200", "--driver", "570.86.10"),
        *(
            "--runtime",
            "tensorrt_llm==1.2.1",
            "--tp",
            "8",
            "--slo",
            "ttft_ms_p95=300",
            "--rank",
            "first_token",
        ),
    ),
}
"""Each as people type it; a recipe is made in the one where none suits."""

CALLS: dict[str, Callable[[Registry], object]] = {
    "listed()": lambda registry: registry.listed(limit=50),
    "find(), every version suits": lambda registry: registry.find(limit=20),
    "find(), none suits": lambda registry: registry.find(limit=20, gpu="b200"),
    "find(model=...)": lambda registry: registry.find(
        limit=20, model="team/model3", tp=8, slo={"ttft_ms_p95": 300}
    ),
    "resolve('NAME@prod')": lambda registry: registry.resolve("team0/model0/build0@prod"),
}


def main(postgres: str | None = None) -> None:
    """Prints processor time of the commands, the best of alternating runs, and the best wall time of the calls.

    The commands run on one core, so that on an idle machine they take hardly longer than they compute.
    """
    shutil.rmtree(STORE, ignore_errors=True)
    few, many = STORE / "few.db", STORE / "many.db"
    fill(few, 1, 1)
    fill(many, VERSIONS, NAMES)
    databases = {"SQLite": (str(few), str(many))}
    print("| command | 1 version, ms | 10,000 versions, ms | more, ms |\n| --- | --- | --- | --- |")
    for name, args in COMMANDS.items():
        one, all_ = _alternating(str(few), str(many), args)
        print(f"| `{name}` | {one:.0f} | {all_:.0f} | {all_ - one:.0f} |", flush=True)
    if postgres is not None:
        fill(postgres, VERSIONS, NAMES)
        databases["PostgreSQL"] = ("", postgres)
    print("\n| call, 10,000 versions | " + " | ".join(f"{name}, ms" for name in databases) + " |")
    print("| --- |" + " --- |" * len(databases))
    for name, call in CALLS.items():
        times = [_best(open_registry(urls[1]), call) for urls in databases.values()]
        print(f"| `{name}` | " + " | ".join(f"{found:.1f}" for found in times) + " |", flush=True)


def _alternating(few: str, many: str, args: tuple[str, ...]) -> tuple[float, float]:
    """Best of the command on both registries, in ms; a run on the one follows a run on the other."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        for registry, found in zip((few, many), times, strict=True):
            where = ["--store", str(STORE / "store"), "--registry", f"sqlite:///{registry}"]
            found.append(_computed(["-m", "pipeline.cli", *where, *args]))
    return min(times[0]), min(times[1])


def _computed(arguments: list[str]) -> float:
    """Processor time of a Python process and its children, in ms."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def _best(registry: Registry, call: Callable[[Registry], object]) -> float:
    """Shortest wall time of the call, in ms."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        call(registry)
        times.append((time.perf_counter() - started) * 1e3)
    return min(times)


if __name__ == "__main__":
    main(*sys.argv[1:2])
