"""The store against `cp` and `sha256sum` in one run, and what sharing saves over formats and layouts."""

import argparse
import os
import shutil
import statistics
import subprocess  # noqa: TID251 the yardsticks are programs
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import yaml

from artifacts import digest
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.sharing import measure
from artifacts.store.survey import survey
from pipeline.plan.plan import Plan
from pipeline.plan.planning import plan_one
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site, realize
from recipes.load import load

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "recipes" / "demo"
BENCH = ROOT / ".bench"

FORMATS = ("fp8", "int8_sq", "int4_awq", "none")
LAYOUTS = ((1, 1), (2, 1), (1, 2), (2, 2))
"""Tensor- and pipeline-parallel degrees."""

FILES = 8
BUILT = ("source", "calibration_set", "leakage", "statistics", "quantized_checkpoint", "sharded_checkpoint")
"""Steps without a compiler: the weights, in every format and layout."""


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes until everything written is on disk."""
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run(*argv: str | Path) -> None:
    """Runs one of the yardsticks."""
    subprocess.run([*map(str, argv)], check=True, stdout=subprocess.DEVNULL)


def copied(source: Path, target: Path) -> None:
    """What people do without a store; on disk at the end, as an artifact is."""
    run("cp", "-r", source, target)
    run("sync", "-f", target)


def written(store: LocalStore, key: str, source: Path) -> None:
    """The same files as an artifact: copied, hashed, on disk, committed.

    They keep their age, as most files of a build are older than the two seconds after which times tell.
    """
    with store.write(key, kind="engine", step={}, host={}) as draft:
        for path in source.iterdir():
            run("cp", "-p", path, draft.path / path.name)


def throughput(size_gb: float, rounds: int) -> None:
    """Prints medians over alternating rounds; every file is in the page cache for all readers alike."""
    BENCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BENCH) as folder:
        source, times = Path(folder, "source"), dict[str, list[float]]()
        source.mkdir()
        for number in range(FILES):
            (source / f"{number}.bin").write_bytes(os.urandom(int(size_gb * 1e9) // FILES))
        files = sorted(source.iterdir())
        for number in range(rounds):
            store = open_store(Path(folder, f"store{number}"))
            works: dict[str, Callable[[], object]] = {
                "cp -r; sync": lambda: copied(source, Path(folder, "copy")),
                "sha256sum": lambda: run("sha256sum", *files),
                "write": partial(written, store, digest.of_json("one"), source),
                "write, contents in the store": partial(written, store, digest.of_json("two"), source),
                "verify --all": partial(survey, store),
            }
            for name, work in works.items():
                times.setdefault(name, []).append(timed(work))
            shutil.rmtree(Path(folder, "copy"))
            shutil.rmtree(store.root)
    print(
        f"{size_gb:g} GB in {FILES} files, medians of {rounds} alternating rounds, {os.cpu_count()} cores\n"
    )
    print("| what | s | MB/s |\n| --- | --- | --- |")
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, seconds in medians.items():
        print(f"| `{name}` | {seconds:.2f} | {size_gb * 1e3 / seconds:,.0f} |")
    yardstick = medians["cp -r; sync"] + medians["sha256sum"]
    print(f"\nwrite takes {medians['write'] / medians['cp -r; sync']:.2f} times `cp -r; sync`", end=", ")
    print(f"{medians['write'] / yardstick:.2f} times `cp -r; sync` and `sha256sum` after one another;")
    print(
        f"verify runs at {medians['sha256sum'] / medians['verify --all']:.2f} times the speed of `sha256sum`"
    )


def sharing(built: Sequence[str] = BUILT) -> None:
    """Prints bytes of the demo model in every format and layout, with and without sharing."""
    BENCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BENCH) as folder:
        store = open_store(Path(folder, "store"))
        site, made = Site(store=store, host=probe()), set[str]()
        for fmt in FORMATS:
            for tp, pp in LAYOUTS:
                for step in plan_of(Path(folder, "recipe.yaml"), site, fmt, tp, pp).steps:
                    if step.kind in built and step.key not in made:
                        realize(step, site, Listener())
                        made.add(step.key)
        found = measure(store)
    print(
        f"| {len(FORMATS)} formats x {len(LAYOUTS)} layouts, {found.artifacts} artifacts | MB |\n| --- | --- |"
    )
    print(f"| each artifact by itself | {found.listed_bytes / 1e6:.2f} |")
    print(f"| with shared files | {found.held_bytes / 1e6:.2f} |")
    print(f"\n{found.listed_bytes / found.held_bytes:.2f} times less")


def plan_of(file: Path, site: Site, fmt: str, tp: int, pp: int) -> Plan:
    """The plan of the demo model in a format and layout."""
    recipe = yaml.safe_load((DEMO / "int4_awq_tp2.yaml").read_text())
    recipe["model"]["path"] = str(DEMO / "model")
    recipe["name"], recipe["format"] = f"bench/{fmt}_tp{tp}_pp{pp}", fmt
    recipe["engine"] |= {"tp": tp, "pp": pp}
    recipe["gate"]["data"]["path"] = str(DEMO / "data" / "gate.jsonl")
    for data in recipe["calibration"]["data"]:
        data["path"] = str(DEMO / data["path"])
    if fmt == "none":
        del recipe["calibration"]
    file.write_text(yaml.safe_dump(recipe))
    (loaded,) = load(file)
    return plan_one(loaded, site)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", action="store_true", help="build the engines too: a quarter of an hour")
    args = parser.parse_args([] if argv is None else argv)
    throughput(args.size_gb, args.rounds)
    print()
    sharing((*BUILT, "engine") if args.engines else BUILT)


if __name__ == "__main__":
    main(sys.argv[1:])
