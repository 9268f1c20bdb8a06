"""How long the command line takes: help, plan, a fully cached run; against a bare interpreter in the same run.

`--against COMMIT` times the command line of an earlier commit in turn with ours; `0.1` is one.
"""

import argparse
import shutil
import statistics
import subprocess  # noqa: TID251 runs the command line as a user would
import sys
import time
from pathlib import Path

from tests.commits import unpack_commit

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "recipes/demo/int4_awq_tp2.yaml"
ROUNDS = 9


def seconds(checkout: Path, *command: str) -> float:
    """Wall time of one successful command."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=checkout, capture_output=True, check=True)
    return time.perf_counter() - started


def commands(checkout: Path) -> dict[str, tuple[str, ...]]:
    """What is timed in a checkout, by its name; the run's artifacts are made first."""
    store = checkout / ".bench" / "commands"
    empty = f"{store}-empty"

    def enginery(store: object, *args: str) -> tuple[str, ...]:
        return ("-m", "pipeline.cli", "--store", str(store), *args)

    run = enginery(store, "run", RECIPE)
    subprocess.run([sys.executable, *run], cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return {
        "enginery --help": enginery(store, "--help"),
        "enginery plan, nothing cached": enginery(empty, "plan", RECIPE),
        "enginery plan, all cached": enginery(store, "plan", RECIPE),
        "enginery run, all cached": run,
    }


def main() -> None:
    """Prints medians of alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="COMMIT", help="an earlier commit, run with this interpreter")
    commit: str | None = parser.parse_args().against
    against = unpack_commit(commit, ROOT / ".bench" / "commits" / commit) if commit else None
    ours = {(ROOT, name): argv for name, argv in commands(ROOT).items()}
    theirs = {(against, name): argv for name, argv in commands(against).items()} if against else {}
    times: dict[tuple[Path, str], list[float]] = {key: [] for key in (*ours, *theirs)}
    bare = []
    for _ in range(ROUNDS):
        bare.append(seconds(ROOT, "-c", "pass"))
        for (checkout, name), argv in (ours | theirs).items():
            shutil.rmtree(checkout / ".bench" / "commands-empty", ignore_errors=True)
            times[checkout, name].append(seconds(checkout, *argv))
    floor = statistics.median(bare)
    print(f"A bare interpreter: {floor:.3f} s.\n")
    print("| command | median s | times a bare interpreter | times the commit |\n| --- | --- | --- | --- |")
    for _, name in ours:
        own = statistics.median(times[ROOT, name])
        ratio = f"{own / statistics.median(times[against, name]):.2f}" if against else ""
        print(f"| `{name}` | {own:.2f} | {own / floor:.1f} | {ratio} |")


if __name__ == "__main__":
    main()
