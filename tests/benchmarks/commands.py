"""How long the command line takes: help, plan, a fully cached run; against a bare interpreter in the same run."""

import shutil
import statistics
import subprocess  # noqa: TID251 runs the command line as a user would
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / ".bench" / "commands"
RECIPE = "recipes/demo/int4_awq_tp2.yaml"


def seconds(*command: str) -> float:
    """Wall time of one successful command."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - started


def enginery(*args: str) -> tuple[str, ...]:
    """The command line as arguments of the interpreter."""
    return ("-m", "pipeline.cli", "--store", str(STORE), *args)


def main() -> None:
    """Prints medians of five alternating runs."""
    subprocess.run(
        [sys.executable, *enginery("run", RECIPE)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    empty = str(STORE) + "-empty"
    commands = {
        "python -c pass": ("-c", "pass"),
        "enginery --help": enginery("--help"),
        "enginery plan, nothing cached": ("-m", "pipeline.cli", "--store", empty, "plan", RECIPE),
        "enginery run, all cached": enginery("run", RECIPE),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(5):
        for name, command in commands.items():
            shutil.rmtree(empty, ignore_errors=True)
            times[name].append(seconds(*command))
    bare = statistics.median(times["python -c pass"])
    print("| command | median s | times a bare interpreter |\n| --- | --- | --- |")
    for name, found in times.items():
        print(f"| `{name}` | {statistics.median(found):.2f} | {statistics.median(found) / bare:.1f} |")


if __name__ == "__main__":
    main()
