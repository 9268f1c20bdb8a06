"""subscribe and notify from the shell: who is told of what, once, again, and until stopped."""

import json
import os
import signal
import subprocess  # noqa: TID251 following ends by a signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from artifacts.registry.registry import Registry, open_registry
from tests.callables import Ask
from tests.pipeline.published import publication
from tests.present import present

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with one version of each of two names; its commands tell nobody by themselves."""
    registry = open_registry(tmp_path / "store" / "registry.db")
    for name in ("team/a", "team/b"):
        registry.publish(publication(name))
    return registry


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """A webhook, and the status codes that it gives in turn, the last one for ever."""
    answers = [410, 204]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", answers
    server.shutdown()
    server.server_close()
    serving.join()


def test_only_what_was_asked_for_is_told(ask: Ask, registry: Registry, tmp_path: Path):
    heard = tmp_path / "heard"
    hook = f"{sys.executable} -c \"import os; open('{heard}', 'a').write(os.environ['ENGINERY_EVENT_NAME'] + ' ')\""
    assert (
        ask("-q", "registry", "subscribe", "--command", hook, "--names", "*/b", "--kind", "alias_moved")[1]
        == "1\n"
    )
    for name in ("team/a", "team/b"):
        registry.promote(name, "prod", to=1, expect=None)
    registry.promote("team/b", "candidate", to=1, expect=None)
    code, out, _ = ask("registry", "notify")
    assert (code, out.count("delivered alias_moved team/b to 1 ("), heard.read_text()) == (
        0,
        2,
        "team/b team/b ",
    )
    (row,) = json.loads(ask("--json", "registry", "subscribe")[1])
    assert (row["names"], row["kinds"], row["told"], row["waiting"]) == ("*/b", "alias_moved", 2, 0)
    assert [row["state"] for row in json.loads(ask("--json", "registry", "notify", "--list")[1])] == [
        "told",
        "told",
    ]
    assert ask("registry", "subscribe", "--remove", "1")[:2] == (0, "subscriber 1 is removed\n")
    registry.promote("team/b", "third", to=1, expect=None)
    assert ask("--json", "registry", "notify")[1] == "[]\n"
    assert heard.read_text() == "team/b team/b "


def test_what_was_given_up_is_tried_again_when_asked(
    ask: Ask, registry: Registry, answering: tuple[str, list[int]], tmp_path: Path
):
    url, _ = answering
    secret = tmp_path / "secret"
    ask("registry", "subscribe", "--new-secret", str(secret))
    assert ask("registry", "subscribe", "--webhook", url, "--secret", f"file:{secret}")[0] == 0
    registry.promote("team/a", "prod", to=1, expect=None)
    assert "will not receive alias_moved team/a: " in " ".join(ask("registry", "notify")[2].split())
    (row,) = json.loads(ask("--json", "registry", "notify", "--list")[1])
    assert (row["state"], row["attempts"]) == ("given up", 1)
    assert ask("--json", "registry", "notify")[1] == "[]\n"
    code, out, err = ask("registry", "notify", "--retry", "1")
    assert (code, "1 events are retried for subscriber 1" in err) == (0, True)
    assert out.startswith("delivered alias_moved team/a to 1 (")
    assert json.loads(ask("--json", "registry", "notify", "--list")[1])[0]["state"] == "told"


@pytest.mark.slow
def test_following_tells_what_happens_until_it_is_stopped(ask: Ask, registry: Registry, tmp_path: Path):
    heard = tmp_path / "heard"
    ask("registry", "subscribe", "--command", f"touch {heard}")
    argv = [sys.executable, "-m", "pipeline.cli", "--store", str(tmp_path / "store"), "--json"]
    with subprocess.Popen(
        [*argv, "registry", "notify", "--follow", "--every", "0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ),
    ) as child:  # fmt: skip
        documents = []
        for alias in ("prod", "candidate"):
            registry.promote("team/a", alias, to=1, expect=None)
            documents.append(read(child))
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert [(row["kind"], row["name"], row["problem"]) for (row,) in documents] == [
        ("alias_moved", "team/a", None)
    ] * 2
    assert (child.returncode, "stopped; the next `enginery registry notify`" in err) == (0, True), err
    assert heard.exists()


def read(child: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    """The next JSON document of a process that goes on."""
    text = ""
    while not text.endswith("]\n"):
        line = present(child.stdout).readline()
        assert line, present(child.stderr).read()
        text += line
    return json.loads(text)
