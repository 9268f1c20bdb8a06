"""Subscriptions: what may be asked for, and whose secrets are named and never shown."""

from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from artifacts.errors import RowRefused, SubscriptionRefused
from artifacts.notify.outbox import Outbox
from artifacts.notify.subscription import check_subscription, read_reference, write_secret
from artifacts.registry.database import connect, open_database
from tests.odd import places


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    connect(url).create()
    return Outbox(open_database(url))


@pytest.mark.parametrize(
    ("target", "secret", "kinds", "said"),
    [
        ("ftp://host/x", "env:S", [], "is not an HTTP URL; give https"),
        ("https://", "env:S", [], "is not an HTTP URL"),
        ("http://[::1", "env:S", [], "is not an HTTP URL"),
        ("https://host:99999/", "env:S", [], "is not an HTTP URL"),
        ("https://me:hunter2@host/x", "env:S", [], "at host has a user or password in it"),
        ("https://host/x?access_token=hunter2", "env:S", [], r"at host has a secret \(access_token\) in it"),
        ("https://host/x?a=1&X-Api-Key=hunter2", "env:S", [], r"a secret \(X-Api-Key\)"),
        ("https://host/x", "whsec_hunter2", [], "takes a reference, not the secret itself"),
        ("https://host/x", None, [], "needs a secret that signs its messages"),
        ("https://host/x", "env:S", ["publised"], "unknown kind of event 'publised'; have published"),
        ("  ", "env:S", [], "the target is empty"),
    ],
)
def test_ways_that_cannot_be_trusted_are_refused_and_no_secret_is_shown(
    outbox: Outbox, target: str, secret: str | None, kinds: list[str], said: str
):
    with pytest.raises(SubscriptionRefused, match=said) as refused:
        outbox.subscribe("webhook", target, secret=secret, kinds=kinds)
    assert "hunter2" not in str(refused.value)
    assert outbox.subscriptions() == []


def test_commands_are_taken_apart_before_they_are_kept():
    check_subscription("command", "notify-send 'a b'", None, ["published"])
    with pytest.raises(SubscriptionRefused, match="names no program; give one"):
        check_subscription("command", "''", None, [])
    with pytest.raises(SubscriptionRefused, match="has no closing quotation"):
        check_subscription("command", "notify-send 'a", None, [])
    with pytest.raises(SubscriptionRefused, match="takes no secret"):
        check_subscription("command", "x", "env:S", [])


def test_a_new_secret_is_for_its_owner_and_never_replaced(tmp_path: Path):
    write_secret(tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    Webhook(read_reference(f"file:{tmp_path / 's'}", {}))
    with pytest.raises(SubscriptionRefused, match="File exists"):
        write_secret(tmp_path / "s")
    with pytest.raises(SubscriptionRefused, match="env:NO is empty or not set"):
        read_reference("env:NO", {"NO": " "})
    with pytest.raises(
        SubscriptionRefused,
        match="no such file; the user who runs `enginery registry notify` must be able to read it",
    ):
        read_reference(f"file:{tmp_path / 'absent'}", {})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"secret": "env:" + "A" * 300}, "secret .*304 characters"),
        ({"names": "n" * 201}, "names .*201 characters"),
        ({"target": "env:A" + "B" * (1 << 20)}, "target "),
        ({"names": "a\0b"}, "names "),
    ],
)
def test_what_no_reader_would_take_is_refused_before_it_is_written(
    outbox: Outbox, changed: dict[str, Any], said: str
):
    with pytest.raises(RowRefused, match=f"subscriber .* cannot be written: {said}"):
        outbox.subscribe("webhook", **{"target": "https://host/x", "secret": "env:S", **changed})
    assert outbox.subscriptions() == []
    assert outbox.subscribe("webhook", "https://host/x", secret="env:S" + "x" * 295) == 1
    assert [one.id for one in outbox.subscriptions()] == [1]


@pytest.mark.parametrize(
    "what", ["fifo", "socket", "directory", "/dev/zero", "nothing", "a" * 5000, "loop", "~nosuchuser/x"]
)
def test_a_secret_in_what_is_no_file_is_refused_at_once(outbox: Outbox, tmp_path: Path, what: str):
    places(tmp_path / "odd")
    where = f"file:{what if what[0] in '/~' else tmp_path / 'odd' / what}"
    for target, secret in (("https://host/x", where), (where, "env:S")):
        with pytest.raises(SubscriptionRefused, match="`enginery registry notify` must be able to read it"):
            outbox.subscribe("webhook", target, secret=secret)
    assert outbox.subscriptions() == []
