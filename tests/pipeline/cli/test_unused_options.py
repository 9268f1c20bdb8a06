"""Options that a call would not use are refused: whoever gives one relies on it."""

from pathlib import Path

import pytest

from artifacts.client import Client
from tests.callables import Ask
from tests.pipeline.published import NAME, publication

pytestmark = pytest.mark.slow

V = f"{NAME}:1"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Two versions with their files, the first in prod."""
    client = Client(str(tmp_path / "store"))
    for seed in (1, 2):
        made = publication(seed=seed)
        with client.store.write(made.engine_key, kind="engine", step={}, host={}) as draft:
            (draft.path / "rank0.bin").write_bytes(b"engine" * seed)
        digest = client.store.manifest(made.engine_key).digest
        client.registry.publish(publication(seed=seed, manifest_digest=digest))
    client.promote(V, "prod")
    return client


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("verify", "--all", "--require-signed"), "--require-signed has no effect with --all: signatures"),
        (("verify", "--all", "--trusted-key", "k.pub"), "--trusted-key has no effect with --all"),
        (
            ("promote", V, "prod", "--new", "--expect", "1"),
            "--new expects that the alias does not exist, and --expect a version",
        ),
        (("trust", "sign", V, "--output", "sig"), "--output has no effect without --key"),
        (("trust", "sign", V, "--key", "k", "--require-signed"), "--require-signed has no effect with --key"),
        (("trust", "sign", V, "--key", "k", "--add", "sig"), "--key has no effect with --add"),
        (("trust", "sign", ".", "--add", "sig", "--key", "k"), "--add has no effect on a directory"),
        (("trust", "attest", V, "--output", "sig"), "--output has no effect without --key"),
        (("registry", "notify", "--every", "1"), "--every has no effect without --follow"),
        (("registry", "notify", "--list", "--retry", "1"), "--retry has no effect with --list"),
        (("registry", "notify", "--list", "--follow"), "--follow has no effect with --list"),
        (
            ("registry", "subscribe", "--kind", "published"),
            "--kind has no effect without --webhook or --command",
        ),
        (("registry", "subscribe", "--remove", "1", "--names", "x"), "--names has no effect without"),
        (
            ("registry", "waive", "--end", "1", "--reason", "r", "--for", "1d"),
            "--reason and --for have no effect with",
        ),
        (("registry", "waive", V, "--reason", "r"), "--reason has no effect without an ALIAS and a RULE"),
        (("find", "--gpu", "h200", "--any-host"), "--any-host has no effect with --gpu"),
        (("store", "repair", "./pulled"), "no version of './pulled'"),
        (
            ("store", "gc", "--yes", "--also", "sqlite:////nowhere/x.db"),
            "no registry at sqlite:////nowhere/x.db",
        ),
        (("registry", "notify", "--retry", "9"), "no subscriber 9 in"),
        (("trust", "sign", V, "--require-signed"), "no key is trusted; give --trusted-key FILE"),
        (("pull", V, "nowhere", "--require-signed"), "no key is trusted; give --trusted-key FILE"),
        (("verify", V, "--require-signed"), "no key is trusted; give --trusted-key FILE"),
    ],
)
def test_an_option_without_effect_is_refused(ask: Ask, client: Client, command: tuple[str, ...], said: str):
    before = client.registry.events()
    code, out, err = ask(*command)
    assert (code, out) == (2, ""), err
    assert said in " ".join(err.split())
    assert client.registry.events() == before
    assert len(client.store.keys()) == 2


def test_a_default_is_no_option_that_was_given(ask: Ask, client: Client):
    assert ask("registry", "notify")[0] == 0
    assert ask("registry", "subscribe")[0] == 0
    assert ask("verify", "--all")[1].startswith("2 artifacts, 2 files")
