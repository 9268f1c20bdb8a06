"""Time and memory of each refusal of a recipe that once hung or filled the memory, in a process of its own.

`python -m tests.benchmarks.refusals` fails where one takes 2 s or 500 MB, imports included.
"""

import os
import subprocess  # noqa: TID251 a command is measured from outside
import sys
import tempfile
import time
from pathlib import Path

from tests.seen import seen

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MEMORY_BYTES = 2.0, 500 << 20


def measured(arguments: list[str]) -> tuple[int, float, int]:
    """Exit code, seconds and peak memory of `enginery ARGUMENTS`."""
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, time.monotonic() - start, used.ru_maxrss * 1024


def main() -> int:
    """Prints one line per input; the number of those beyond a limit."""
    beyond = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, _) in seen(Path(folder)).items():
            code, seconds, memory = measured(["--store", f"{folder}/store", "plan", str(file)])
            good = code == 2 and seconds < SECONDS and memory < MEMORY_BYTES
            beyond += not good
            print(f"{'ok ' if good else 'BAD'} {seconds:5.2f} s {memory / 1e6:5.0f} MB  exit {code}  {name}")
    return beyond


if __name__ == "__main__":
    sys.exit(main())
