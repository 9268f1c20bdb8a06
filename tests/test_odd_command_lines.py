"""Whatever is given to a command, it ends with an answer: no hang, no traceback, and JSON where that was asked for.

The calls are made from the click tree, so that a new command or option is among them. Here a sample of them;
all by hand: `ODD_COMMAND_LINES=all python -m pytest tests/test_odd_command_lines.py`, some three minutes.
"""

import json
import os
import random
import re
import socket
import subprocess  # noqa: TID251 a signal is sent to another process
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from artifacts import digest
from artifacts.client import Client
from artifacts.store.opening import open_store
from artifacts.trust import bundle
from pipeline.cli.boundary import report
from pipeline.cli.main import enginery
from pipeline.cli.output import Output
from tests.main_job import write_recipe
from tests.odd import PLACES, places
from tests.pipeline.published import publication
from tests.present import present
from tests.seen import seen
from tests.watched import ROOT, Call, Ended, watched

pytestmark = pytest.mark.slow

SAMPLE = 250
NAME, KEY = "demo/fp8", digest.of_json("engine")

GIVEN = {"recipe": "good.yaml", "files": "good.yaml", "file": "new", "alias": "prod", "prompt": "x", "out": "outdir",
         "directory": "pulled", "target": "oci:x", "source": "oci:x", "name": "a/b"}  # fmt: skip
"""What other arguments are, where one is odd; references are `demo/fp8`."""

BESIDE = {"trust sign --output": ["--key", "key"], "trust sign --add": ["--trusted-key", "key.pub"], "trust attest --output": ["--key", "key"],
          "export --out": ["--to", "triton"], "registry policy --signed-by": ["--", "prod"], "trust keygen file": ["--no-passphrase"]}  # fmt: skip
"""What has to be given beside an argument, so that it is read."""

PLACED = ("reference", "checkpoint", "source", "target")
"""Arguments that are text and may be paths."""


def commands() -> Iterator[tuple[list[str], click.Command]]:
    """Every command that is one, with its words."""

    def walk(command: click.Command, words: list[str]) -> Iterator[tuple[list[str], click.Command]]:
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                yield from walk(present(command.get_command(click.Context(command), name)), [*words, name])
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield words, command

    return walk(enginery, [])


def path_calls() -> Iterator[list[str]]:
    """A call for every argument and option that may be a path, and every odd place."""
    for words, command in commands():
        for one in command.params:
            if not isinstance(one.type, click.Path) and one.name not in PLACED:
                continue
            name = one.opts[-1] if isinstance(one, click.Option) else one.name
            beside = BESIDE.get(f"{' '.join(words)} {name}", [])
            for place in PLACES:
                if words == ["registry", "import"] and place == "/":  # all of this machine would be hashed
                    continue
                given = [
                    place if other is one else GIVEN.get(other.name, NAME)
                    for other in command.params
                    if isinstance(other, click.Argument) and (other.required or other is one)
                ]
                option = [f"{name}={place}"] if isinstance(one, click.Option) else []
                yield [*words, *option, *beside, *([] if "--" in beside else ["--"]), *given]
    for place in PLACES:
        yield ["--store", place, "ls"]
        yield ["--registry", place, "ls"]


def variable_calls() -> Iterator[tuple[dict[str, str], list[str]]]:
    """A call for every variable that names a place."""
    for place in PLACES:
        if "\0" not in place:
            yield {"ENGINERY_STORE": place}, ["ls"]
            yield {"ENGINERY_REGISTRY": place}, ["ls"]
            yield {"ENGINERY_TRUSTED_KEYS": place}, ["verify", NAME]
            yield {"ENGINERY_TOOLCHAINS": place}, ["doctor"]
            yield {"ENGINERY_CACHE": place, "ENGINERY_STORE": "s3://nobody"}, ["plan", "nothing.yaml"]
            yield {"HOME": place}, ["plan", "nothing.yaml"]


def wrong_calls() -> Iterator[list[str]]:
    """For every command calls that fail before it runs, and one whose store is below a file."""
    for words, command in commands():
        yield [*words, "--no-such-option"]
        if any(isinstance(one, click.Argument) and one.required for one in command.params):
            yield words
        yield [*words, *["x"] * 9]


def numbers() -> Iterator[list[str]]:
    """A call for every option that is a number, with what is too large for registries and calendars, or is none."""
    for words, command in commands():
        for one in command.params:
            if isinstance(one.type, click.IntRange | click.FloatRange) or one.type in (
                click.INT,
                click.FLOAT,
            ):
                for value in ("9" * 309, "-1" + "0" * 20, "nan", "1e400", "0x10", ""):
                    given = [
                        NAME
                        for other in command.params
                        if isinstance(other, click.Argument) and other.required
                    ]
                    yield [*words, f"{one.opts[-1]}={value}", "--", *given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every odd place, a good recipe and a key; and a store with one version."""
    root = tmp_path_factory.mktemp("odd")
    places(root / "odd")
    write_recipe(root / "odd" / "good.yaml")
    store = open_store(root / "store")
    with store.write(KEY, kind="engine", step={}, host={}) as draft:
        (draft.path / "engine.json").write_text("{}")
    published = publication(NAME, engine_key=KEY, manifest_digest=store.manifest(KEY).digest)
    Client(str(store.root)).registry.publish(published)
    bundle.make_key(root / "odd" / "key", "")
    return root


def results(site: Path, calls: list[Call]) -> Iterator[tuple[Call, Ended]]:
    return zip(calls, watched(calls), strict=True)


def call(site: Path, words: list[str], env: dict[str, str] | None = None, **more: str) -> Call:
    given = [] if env and "ENGINERY_STORE" in env else ["--store", str(site / "store")]
    return Call((*given, "--json", *words), env=env, cwd=str(site / "odd"), **more)


def one_document(text: str) -> Any:
    """What `--json` printed: exactly one document."""
    return json.loads(text)


def require_answer(call: Call, ended: Ended) -> None:
    """The call ended as documented; a failure has its document, whose message is no longer than people read."""
    assert ended.answered, (call, ended.code, ended.err[-800:])
    if ended.code == 0:
        return
    document = one_document(ended.out)
    assert isinstance(document, dict), (call, document)
    error = document["error"]
    assert error["exit_code"] == ended.code, call
    assert 0 < len(error["message"]) < 12_000, call
    assert ended.err.strip(), call
    for text in (ended.out, ended.err):
        assert all(c.isprintable() or c in "\n\t" for c in text), (call, text)


def test_odd_places_end_with_an_answer(site: Path):
    every = [call(site, words) for words in path_calls()]
    every += [call(site, words, env) for env, words in variable_calls()]
    whole = os.environ.get("ODD_COMMAND_LINES") == "all"
    chosen = every if whole else random.Random(11).sample(every, SAMPLE)
    ended = 0
    for made, end in results(site, chosen):
        require_answer(made, end)
        ended += 1
    assert ended == len(chosen)
    assert len(every) > 1000


def test_a_wrong_call_of_any_command_prints_its_failure_as_json(site: Path):
    calls = [call(site, words) for words in wrong_calls()]
    for made, end in results(site, calls):
        require_answer(made, end)
        assert end.code == 2, (made, end.out)
        assert "error" in one_document(end.out), made
    assert len(calls) > 80


def test_a_number_that_none_can_be_is_a_wrong_call(site: Path):
    calls = [call(site, words) for words in numbers()]
    for made, end in results(site, calls):
        require_answer(made, end)
        assert end.code == 2, (made, end.out)
    assert len(calls) > 120


def test_every_path_of_the_click_tree_is_of_our_type():
    from pipeline.cli.command_parameters import PathType

    paths = [one for _, command in commands() for one in command.params if isinstance(one.type, click.Path)]
    assert len(paths) > 20
    assert all(isinstance(one.type, PathType) for one in paths)


def test_what_was_seen_to_fail_is_refused_by_its_place(tmp_path: Path):
    cases = seen(tmp_path)
    calls = [
        Call(("--store", str(tmp_path / "store"), "--json", "plan", str(file))) for file, _ in cases.values()
    ]
    for (name, (file, said)), end in zip(cases.items(), watched(calls), strict=True):
        assert end.code == 2, (name, end.err[-800:])
        assert end.err.startswith(f"error: {file}: "), (name, end.err[:300])
        assert re.search(said, end.err), (name, end.err[:600])
        assert len(end.err) < 6000, name
        assert one_document(end.out)["error"]["kind"] == "RecipeError"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_messages_are_printed_in_any_encoding(site: Path, encoding: str):
    (site / "odd" / "ñ-\u202e-\u2713.yaml").write_text(
        'name: "\\e[31m ñ \\u202e"\nfoo\u2713[1]: ñ\n', encoding="utf-8"
    )
    calls = [
        call(site, ["check", "ñ-\u202e-\u2713.yaml"], encoding=encoding),
        Call(("--store", str(site / "store"), "card", NAME), encoding=encoding),
    ]
    (_, refused), (_, shown) = results(site, calls)
    assert (refused.code, shown.code) == (2, 0), (refused.err, shown.err)
    assert "\\u202e" in refused.err
    assert "\x1b" not in refused.err + refused.out


def test_a_bug_is_a_document_too(capsys: pytest.CaptureFixture[str]):
    try:
        raise ValueError("x" * 9000)
    except ValueError as exc:
        code = report(exc, Output(json_mode=True))
    assert code == 70
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert (error["exit_code"], error["kind"]) == (70, "ValueError")
    assert len(error["message"]) < 500
    assert "Traceback" in err


def test_an_answer_before_a_failure_stays_the_one_document(capsys: pytest.CaptureFixture[str]):
    out = Output(json_mode=True)
    out.value({"steps": []}, text="")
    out.flush()
    assert report(OSError(13, "Permission denied", "/x"), out) == 4
    printed, err = capsys.readouterr()
    assert json.loads(printed) == {"steps": []}
    assert "/x: Permission denied" in err


INTERRUPTED = """
import signal, sys
from pipeline.cli import main as cli
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
signal.setitimer(signal.ITIMER_REAL, 1.0)
sys.argv[0] = "enginery"
cli.main()
"""
"""The command line, terminated by a signal; the timer begins once its imports are done."""


def test_an_interrupted_command_prints_its_failure_as_json(site: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store, recipe = str(site / "store"), str(site / "odd" / "good.yaml")
        command = ["--store", store, "--json", "submit", recipe, "--server", url]
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, *command],
            capture_output=True, text=True, cwd=ROOT, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert one_document(done.stdout)["error"]["exit_code"] == 130
