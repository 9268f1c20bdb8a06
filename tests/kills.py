"""Kills a real `enginery run` over and over, wherever it is; nothing half-written may ever be found.

    python -m tests.kills --rounds 200

A round is one SIGKILL: of the orchestrator at a random moment, of the child of the step that runs, or of the
orchestrator right before its n-th change of a file, a directory or the registry. After each, every artifact
that is in the store has the digests of an undisturbed run, `verify --all` finds nothing, and the registry
holds no version, or the one of a finished run. What was killed goes on in the next round; once a run comes to
its end, the store is compared whole, collected, and a new one begun.
"""

import argparse
import math
import random
import shutil
import subprocess  # noqa: TID251 whole runs are killed from outside
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from artifacts.client import Client
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.survey import survey
from tests.artifacts.sweeping import age, collect
from tests.main_job import write_recipe
from tests.test_recovery import ROOT, contents, finish, no_process_of, start, wait_until

FEWEST_S = 0.3
"""Earliest kill by the clock: before that a run has not begun to write."""

DYING = """
import os, signal, sys
writing = os.O_WRONLY | os.O_RDWR
changes = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime", "sqlite3.connect"}
left = int(sys.argv.pop(1))
def count(event, args):
    global left
    if event in changes or event == "open" and args[2] & writing:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
from pipeline.cli.main import main
main()
"""
"""The command line, which dies right before its n-th change."""


@dataclass(kw_only=True)
class Campaign:
    """What is killed, and what came of it."""

    recipe: Path
    expected: dict[tuple[str, str], str]
    """Step and file -> sha256, of an undisturbed run."""
    keys: dict[str, str]
    """Step -> key."""
    longest_s: float
    """A run is killed after this at the latest; more than its longest step takes, so that all get done."""
    changes: int
    """Changes that an undisturbed run makes, about."""
    rng: random.Random
    struck: Counter[str] = field(default_factory=Counter)
    """Rounds by what was killed; `too late` where the run had ended before."""
    builds: int = 0
    """Runs that came to their end, and whose stores were compared whole."""

    def go(
        self, rounds: int, base: Path, tell: Callable[[str], None] = print, within_s: float = math.inf
    ) -> None:
        """Kills so many times, or for so long; the first broken promise is an AssertionError."""
        store, until = base / "store", time.monotonic() + within_s
        while rounds > 0 and time.monotonic() < until:
            how, ended = self._strike(store)
            wait_until(lambda: no_process_of(store), 60)
            self.struck["too late" if ended else how] += 1
            rounds -= not ended
            found = self._checked(open_store(store))
            tell(f"{sum(self.struck.values())} {how}: {len(found)} of {len(self.keys)} steps are there")
            if len(found) == len(self.keys) and (ended or rounds == 0 or self.rng.random() < 1 / 2):
                self._end(store)
        self._end(store)

    def _strike(self, store: Path) -> tuple[str, bool]:
        """Starts a run and kills something of it; says what, and whether the run had ended by itself."""
        how = self.rng.choice(("orchestrator", "child", "before a change"))
        if how == "before a change":
            number = round(self._between(1, self.changes))
            argv = [sys.executable, "-c", DYING, str(number), "--store", str(store), "run", str(self.recipe)]
            done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
            assert done.returncode in (0, -9), done.stderr
            return how, done.returncode == 0
        run = start(store, self.recipe)
        self._wait(run)
        if how == "child" and (children := _children(run.pid)):
            self.rng.choice(children).kill()
            _, err = run.communicate(timeout=120)
            assert run.returncode in (0, 1), err
            return how, run.returncode == 0
        ended = run.poll() is not None
        run.kill()
        run.communicate()
        return "orchestrator", ended

    def _wait(self, run: "subprocess.Popen[str]") -> None:
        until = time.monotonic() + self._between(FEWEST_S, self.longest_s)
        while time.monotonic() < until and run.poll() is None:
            time.sleep(0.01)

    def _between(self, low: float, high: float) -> float:
        """A number, of each size equally often."""
        return math.exp(self.rng.uniform(math.log(low), math.log(high)))

    def _checked(self, store: LocalStore) -> dict[str, str]:
        """The steps that are in the store, after everything that is there was compared."""
        there = {kind: key for kind, key in self.keys.items() if store.has(key)}
        assert set(store.keys()) == set(there.values())
        found = contents(store.root, there)
        wanted = {place: sha256 for place, sha256 in self.expected.items() if place[0] in there}
        assert found == wanted, f"differing: {sorted(dict(found.items() ^ wanted.items()))}"
        assert survey(store).damages == ()
        published = _published(store.root)
        assert published in ([], [1])
        assert not published or len(there) == len(self.keys)
        return there

    def _end(self, store: Path) -> None:
        """Lets the run come to its end, compares the store whole, collects it and begins a new one."""
        finish(start(store, self.recipe))
        opened = open_store(store)
        assert self._checked(opened) == self.keys
        assert _published(store) == [1]
        age(store)  # the leases of the killed are dead
        collect(opened)
        assert set(opened.keys()) == set(self.keys.values())
        for folder in ("staging", "partial", "quarantine", "leases"):
            assert list((store / folder).glob("*")) == [], folder
        self.builds += 1
        shutil.rmtree(store)


def undisturbed(recipe: Path, store: Path, rng: random.Random) -> Campaign:
    """Runs the recipe once to its end; the campaign that compares with that."""
    before = time.monotonic()
    finish(start(store, recipe))
    opened = open_store(store)
    keys = {opened.manifest(key).kind: key for key in opened.keys()}  # noqa: SIM118 a store is no dict
    took = time.monotonic() - before
    steps = max(opened.manifest(key).seconds for key in keys.values())
    return Campaign(
        recipe=recipe, keys=keys, expected=contents(store, keys), longest_s=min(took, 2 * steps),
        changes=CHANGES, rng=rng,
    )  # fmt: skip


CHANGES = 480
"""Changes of an undisturbed run of the smallest recipe (482, counted through DYING's hook); one that goes on has fewer."""


def smallest(file: Path) -> Path:
    """The recipe that goes through every kind of step soonest."""
    return write_recipe(file, gate__max_sequences=8, gate__limits={"kl": 5.0}, calibration__max_sequences=2)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def _published(store: Path) -> list[int]:
    client = Client(str(store))
    return [record.number for name in client.names() for record in client.versions(name)]


def main() -> None:
    """Runs a campaign, tells each round, and at the end the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--minutes", type=float, default=math.inf, help="End after this, however many.")
    asked = parser.parse_args()
    print("seed", asked.seed, flush=True)
    before = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="enginery-kills-") as place:
        base = Path(place)
        campaign = undisturbed(
            smallest(base / "recipe.yaml"), base / "undisturbed", random.Random(asked.seed)
        )
        print(f"an undisturbed run took {time.monotonic() - before:.0f} s", flush=True)
        campaign.go(asked.rounds, base, lambda text: print(text, flush=True), 60 * asked.minutes)
    kills = {how: count for how, count in campaign.struck.items() if how != "too late"}
    print(
        f"{sum(kills.values())} kills ({', '.join(f'{how} {count}' for how, count in kills.items())}), "
        f"{campaign.builds} runs to their end, no difference, in {(time.monotonic() - before) / 60:.0f} minutes"
    )


if __name__ == "__main__":
    main()
