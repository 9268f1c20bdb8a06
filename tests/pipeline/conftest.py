"""What several tests of the pipeline need: a hub, a draft, and the command line in this process."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cli.boundary import report
from pipeline.cli.main import enginery
from pipeline.errors import EXIT_CODES
from tests import hub as hubs
from tests.callables import Ask
from tests.checkpoints import LEFT_BEHIND, checkpoint


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "staging" / "draft"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def hub() -> Iterator[hubs.Hub]:
    with hubs.serve(checkpoint() | LEFT_BEHIND) as server:
        yield server


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a command on the test's store; returns its exit code, and what it printed and told."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("ENGINERY_REGISTRY", raising=False)

    def run(*args: str) -> tuple[int, str, str]:
        code = 0
        try:
            enginery(["--store", str(tmp_path / "store"), *args], standalone_mode=False)
        except click.ClickException as exc:
            exc.show()
            code = 2
        except tuple(EXIT_CODES) as exc:
            code = report(exc)
        out, err = capsys.readouterr()
        return code, out, err

    return run
