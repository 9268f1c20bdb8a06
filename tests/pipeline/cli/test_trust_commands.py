"""keygen, sign, attest, subscribe and notify from the shell."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from artifacts import digest
from artifacts.client import Client
from artifacts.registry.registry import Publication
from artifacts.store.opening import open_store
from pipeline.cli.commands.sign import trusted
from pipeline.run.announce import call
from tests.artifacts.test_webhook import due_at
from tests.callables import Ask, Cli

pytestmark = pytest.mark.slow

KEY = digest.of_json("engine")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one published version."""
    opened = open_store(tmp_path / "store")
    with opened.write(KEY, kind="engine", step={}, host={}) as draft:
        (draft.path / "engine.json").write_text("{}")
        (draft.path / "rank0.bin").write_bytes(os.urandom(1000))
    publication = Publication(name="demo/fp8", engine_key=KEY, recipe={}, verdict="PASS", facts={"tp": 2},
                              manifest_digest=opened.manifest(KEY).digest)  # fmt: skip
    Client(str(opened.root)).registry.publish(publication)
    return opened.root


@pytest.mark.slow
def test_an_engine_is_signed_pulled_by_policy_and_checked(cli: Cli, store: Path, tmp_path: Path):
    key, engine = tmp_path / "keys" / "release", tmp_path / "engine"

    def run(*args: str | Path, code: int = 0, **env: Any) -> str:
        done = cli("--store", store, *args, **env)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "stdin is not a terminal; set ENGINERY_KEY_PASSPHRASE" in run("trust", "keygen", key, code=2)
    run("trust", "keygen", key, ENGINERY_KEY_PASSPHRASE="a secret")
    policy: dict[str, Any] = {"ENGINERY_TRUSTED_KEYS": f"{key}.pub"}
    assert "demo/fp8:1 is not signed" in run("pull", "demo/fp8", engine, code=3, **policy)
    assert "is signed by" in run(
        "trust", "sign", "demo/fp8", "--key", key, ENGINERY_KEY_PASSPHRASE="a secret"
    )
    run("trust", "attest", "demo/fp8", "--key", key, ENGINERY_KEY_PASSPHRASE="a secret")
    run("pull", "demo/fp8", engine, **policy)
    assert "all files match the published digests, and signed by" in run("verify", engine, **policy)
    listed = json.loads(run("--json", "trust", "sign", "demo/fp8", **policy))
    assert [(row["what"], row["trusted"]) for row in listed] == [("files", True), ("provenance", True)]


@pytest.mark.slow
def test_a_signature_made_where_there_is_no_registry_is_kept(cli: Cli, store: Path, tmp_path: Path):
    key, engine, out = tmp_path / "release", tmp_path / "engine", tmp_path / "sig.json"
    for args in (
        ("trust", "keygen", key, "--no-passphrase"),
        ("pull", "demo/fp8", engine),
        ("trust", "sign", engine, "--key", key, "--output", out),
        ("trust", "sign", "demo/fp8:1", "--add", out, "--trusted-key", f"{key}.pub"),
        ("verify", "demo/fp8:1", "--trusted-key", f"{key}.pub"),
    ):
        done = cli("--store", store, *args)
        assert done.returncode == 0, (args, done.stderr)
    (engine / "rank0.bin").write_bytes(b"changed")
    done = cli("--store", store, "sign", engine, "--key", key, "--output", tmp_path / "other")
    assert done.returncode == 1
    assert "rank0.bin: 7 bytes; the manifest says 1,000" in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_command_hears_of_a_promotion_without_holding_it_up(cli: Cli, store: Path, tmp_path: Path):
    hook, heard = tmp_path / "hook", tmp_path / "heard"
    hook.write_text(
        f'#!/bin/sh\nsleep 0.2\nprintf "%s" "$ENGINERY_EVENT" > {heard}.new\nmv {heard}.new {heard}\n'
    )
    hook.chmod(0o755)
    assert (
        cli(
            "--store", store, "registry", "subscribe", "--command", str(hook), "--kind", "alias_moved"
        ).returncode
        == 0
    )
    done = cli("--store", store, "promote", "demo/fp8:1", "prod")
    assert done.returncode == 0, done.stderr
    until = time.monotonic() + 20
    while not heard.exists() and time.monotonic() < until:
        time.sleep(0.05)
    said = json.loads(heard.read_text())
    assert (said["type"], said["data"]["version"]) == ("enginery.alias_moved", "demo/fp8:1")


def test_bundles_are_written_where_asked_and_are_the_ones_that_are_kept(
    ask: Ask, store: Path, tmp_path: Path
):
    ask("trust", "keygen", str(tmp_path / "key"), "--no-passphrase")
    trusted = ("--trusted-key", f"{tmp_path / 'key'}.pub", "--require-signed")
    assert "is not signed" in ask("verify", "demo/fp8", *trusted)[2]
    for command in ("sign", "attest"):
        bundle = tmp_path / f"{command}.json"
        assert (
            ask("trust", command, "demo/fp8", "--key", str(tmp_path / "key"), "--output", str(bundle))[0] == 0
        )
        assert {"dsseEnvelope", "verificationMaterial"} <= json.loads(bundle.read_text()).keys()
    assert ", and signed by " in ask("verify", "demo/fp8", *trusted)[1]
    assert ask("pull", "demo/fp8", str(tmp_path / "pulled"), *trusted)[0] == 0
    (tmp_path / "pulled" / "rank0.bin").write_bytes(b"changed")
    assert ask("verify", str(tmp_path / "pulled"), *trusted)[0] == 1
    shown = json.loads(ask("trust", "attest", "demo/fp8")[1])
    assert (shown["predicateType"], shown["subject"][0]["name"]) == (
        "https://slsa.dev/provenance/v1",
        "engine.json",
    )


def test_who_asks_for_signatures_must_say_whose(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ENGINERY_TRUSTED_KEYS", raising=False)
    assert trusted((), require_signed=False) is None
    assert trusted((), require_signed=True) == {}  # of which nobody can have signed


def command(line: str) -> str:
    due = due_at(line, name="$(touch x); `y` '\"\n-rf")
    return call(type(due)(subscription=due.subscription, event=due.event, attempt=1)).problem


def test_a_hook_gets_the_event_and_no_name_in_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINERY_KEY_PASSPHRASE", "a secret")
    assert command("sh -c 'env > env; printf %s \"$ENGINERY_EVENT_NAME\" > name'") == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env", "name"]
    assert (tmp_path / "name").read_text() == "$(touch x); `y` '\"\n-rf"
    seen = (tmp_path / "env").read_text()
    assert "ENGINERY_EVENT_KIND=published" in seen
    assert "a secret" not in seen


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sh -c 'echo out of tea; exit 3'", "sh failed: exit code 3 | out of tea"),
        ("/nowhere/at-all", "cannot be started here: No such file or directory"),
        ("'", "has no closing quotation"),
    ],
)
def test_a_hook_that_fails_says_why(line: str, said: str):
    assert said in command(line)
