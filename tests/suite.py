"""How the suite is run: which tests are slow, and how several processes share them.

A test is slow if it starts a program or takes seconds: its mark says so, or a fixture that starts one (`STARTERS`).
A run of the others, `-m "not slow"`, fails a test that starts a program all the same, so that `make test-fast` stays
fast; only programs of contracts may be started.

`--share 2/3 --claims DIR` makes a process the second of three that run the same tests. A process claims a file
before it runs the file's first test, by making an empty file in the directory. Each begins at another place of the
list; where it comes to files of another, it goes on to those that are free.
"""

import os
import signal
import sys
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest

STARTERS = {
    "built", "cli", "postgres", "postgres_url", "run_python", "s3_server", "small_disk", "start", "together",
}  # fmt: skip
"""Fixtures that start a program."""

STARTING_PARAMETERS = {("database_url", "postgresql"), ("any_store", "remote")}
"""Parameters with which a fixture starts one."""

QUICK = {"trtllm-build", "nvidia-smi", "file", "uname"}
"""Programs that any test may start, as it may ask any for its version: they answer within a tenth of a second."""

VERSION = {"--version", "-dumpfullversion"}

SHARED = ("built",)
"""Fixtures of a session that take a minute: one process runs all files that use one."""

FAST = "not slow"
"""How pytest is told to leave out what is slow."""

SLOW_S = 2.0
"""An unmarked test that takes longer is named at the end."""

REPORTED = 10


def fixtures_of(item: pytest.Item) -> set[str]:
    """Names of the fixtures that a test uses, directly or not."""
    return set(getattr(item, "fixturenames", ()))


def parameters_of(item: pytest.Item) -> set[tuple[str, str]]:
    """Names and values of a test's parameters that are texts."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return {(name, value) for name, value in params.items() if isinstance(value, str)}


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Marks the tests whose fixtures start a program."""
    for item in items:
        if STARTERS & fixtures_of(item) or STARTING_PARAMETERS & parameters_of(item):
            item.add_marker("slow")


class Programs:
    """Fails a test that starts a program: it is to be marked slow."""

    def __init__(self) -> None:
        self.started: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[object, ...]) -> None:
        if event in ("subprocess.Popen", "os.posix_spawn", "os.fork"):
            program, argv = (str(args[0]), args[1]) if args else ("a copy of this process", ())
            asks = isinstance(argv, list) and len(argv) == 2 and argv[1] in VERSION
            if not asks and Path(program).name not in QUICK:
                self.started.append(program)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None]:
        """Watches the fixtures."""
        self.started.clear()
        yield
        self._check()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None]:
        """Watches the test itself."""
        yield
        self._check()

    def _check(self) -> None:
        if self.started:
            pytest.fail(f"starts {', '.join(self.started)} and is not marked slow", pytrace=False)


class Share:
    """One of several processes that run the same tests, each test once."""

    def __init__(self, number: int, count: int, claims: Path) -> None:
        self.number, self.count, self.claims = number, count, claims
        self.groups: dict[Path, str] = {}
        self.mine: dict[str, bool] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Begins the list at this process's place, and has files of one claim follow one another."""
        for item in items:
            shared = next((name for name in SHARED if name in fixtures_of(item)), None)
            if shared or item.path not in self.groups:
                self.groups[item.path] = shared or item.path.as_posix().strip("/").replace("/", "-")
        first: dict[str, int] = {}
        for item in items:
            first.setdefault(self.groups[item.path], len(first))
        begin = len(first) * (self.number - 1) // self.count
        items.sort(key=lambda item: (first[self.groups[item.path]] - begin) % len(first))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Runs the tests that this process claims.

        A test is told which one really comes next, so that fixtures of a file end with the file.
        """
        if session.testsfailed or session.config.option.collectonly:
            return None  # as pytest does it: errors of the collection, or a list
        mine = (item for item in session.items if self._is_mine(item))
        item = next(mine, None)
        while item is not None:
            following = next(mine, None)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            item = following
        return True

    def _is_mine(self, item: pytest.Item) -> bool:
        group = self.groups[item.path]
        if group not in self.mine:
            self.mine[group] = self._claim(group)
        return self.mine[group]

    def _claim(self, group: str) -> bool:
        try:
            os.close(os.open(self.claims / group, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("shared runs")
    group.addoption("--share", help="I/N: be the I-th of N processes that run these tests together")
    group.addoption("--claims", type=Path, help="directory where they claim files; empty at the start")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what is in the background so, and children would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("markexpr") == FAST:
        config.pluginmanager.register(Programs())
    if config.getoption("share"):
        number, count = map(int, config.getoption("share").split("/"))
        config.pluginmanager.register(Share(number, count, config.getoption("claims").resolve()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_slow(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the slowest tests that are not marked slow."""
    reports = {
        report.nodeid: report.duration
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, ())
        if report.when == "call" and "slow" not in report.keywords and report.duration > SLOW_S
    }
    if reports:
        terminalreporter.section("slowest tests that are not marked slow")
    for name, seconds in sorted(reports.items(), key=lambda row: -row[1])[:REPORTED]:
        terminalreporter.write_line(f"{seconds:6.1f} s {name}")
