"""A real browser for tests: headless Chromium, driven over its debugging protocol."""

import base64
import json
import shutil
import subprocess  # noqa: TID251 tests start programs as a shell would
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.required import missing

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)  # fmt: skip
"""`--no-sandbox`: tests may run as root; port 0: Chromium chooses and writes it down."""


def program() -> str | None:
    """Chromium or Chrome on PATH."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.number = socket, 0

    def call(self, method: str, **params: Any) -> Any:
        """The result of one command of the protocol; events that come meanwhile are dropped."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(timeout=30))
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        """Goes to a page; `text_with` waits for what it shows."""
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def click(self, selector: str, timeout_s: float = 30) -> None:
        """Clicks an element, once it is there."""
        deadline = time.monotonic() + timeout_s
        script = f"(e => e ? (e.click(), true) : false)(document.querySelector({json.dumps(selector)}))"
        while not self.evaluate(script):
            assert time.monotonic() < deadline, f"the page has no {selector}"
            time.sleep(0.2)

    def text_with(self, *wanted: str, timeout_s: float = 30) -> str:
        """The text that people see, once it holds all of `wanted`."""
        deadline = time.monotonic() + timeout_s
        while True:
            text = str(self.evaluate("document.body ? document.body.innerText : ''"))
            lacking = [piece for piece in wanted if piece not in text]
            if not lacking:
                return text
            assert time.monotonic() < deadline, f"the page does not show {lacking}; it shows:\n{text}"
            time.sleep(0.2)

    def resize(self, width: int, height: int) -> None:
        """Sets the size of the window."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def shoot(self, file: Path) -> None:
        """Writes a picture of the page, once what moves has come to rest."""
        time.sleep(2)
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with one empty page, killed at the end of the block."""
    chromium = program() or missing("no Chromium on PATH")
    child = subprocess.Popen(
        [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{_port(profile)}/json"
        target = next(one for one in httpx.get(address, trust_env=False).json() if one["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            page = Page(cast("ClientConnection", socket))  # as `__enter__` of its base class says
            page.resize(1280, 1000)
            yield page
    finally:
        child.kill()
        child.wait()


def _port(profile: Path) -> int:
    file, deadline = profile / "DevToolsActivePort", time.monotonic() + 30
    while not (file.exists() and file.read_text().count("\n") >= 1):
        assert time.monotonic() < deadline, "Chromium did not start within 30 s"
        time.sleep(0.1)
    return int(file.read_text().splitlines()[0])
