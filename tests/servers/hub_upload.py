"""The half of a hub that takes commits: a real HTTP server that keeps what is uploaded to it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = 10_000
"""Files of so many bytes go to the large-file store."""

COMMIT = "5d0f3c1b2a49586776859493a2b1c0d9e8f7a6b5"


@dataclass
class Repositories:
    """What was uploaded, and how."""

    address: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    """Repository -> whether it was made private."""
    large: dict[str, bytes] = field(default_factory=dict)
    """sha256 -> bytes."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Name in the last commit -> bytes."""
    message: str = ""
    tokens: set[str | None] = field(default_factory=set)
    refuse: int = 0
    """Status that every request is answered with; 0: none."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: Repositories

    def log_message(self, *_: Any) -> None:
        """Keeps quiet."""

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_POST(self) -> None:
        """Routes what a commit consists of."""
        body = self._body()
        self.hub.tokens.add(self.headers.get("authorization"))
        if self.hub.refuse:
            self._answer({"error": "no"}, self.hub.refuse)
        elif self.path.endswith("/repos/create"):
            said = json.loads(body)
            name = "/".join(part for part in (said.get("organization"), said["name"]) if part)
            self.hub.private[name] = said.get("visibility") == "private"
            self._answer({"url": f"{self.hub.address}/{name}", "name": name})
        elif self.path.endswith("/validate-yaml"):
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            told = [
                {"path": f["path"], "uploadMode": modes[f["size"] >= LARGE], "shouldIgnore": False}
                for f in files
            ]
            self._answer({"files": told})
        elif self.path.endswith("/objects/batch"):
            href = f"{self.hub.address}/lfs/"
            objects = [
                {**one, "actions": {"upload": {"href": href + one["oid"]}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        else:
            self._commit([json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        """Keeps a large file."""
        body = self._body()
        self.hub.large[self.path.rpartition("/")[2]] = body
        self._answer({})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.message = value["summary"]
            elif line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            else:
                data = self.hub.large[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                self.hub.files[value["path"]] = data
        repo = self.path.partition("/api/models/")[2].partition("/commit/")[0]
        url = f"{self.hub.address}/{repo}/commit/{COMMIT}"
        self._answer({"commitUrl": url, "commitOid": COMMIT, "success": True})

    def _answer(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serve() -> Iterator[Repositories]:
    """Takes commits on a free port."""
    hub = Repositories()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
