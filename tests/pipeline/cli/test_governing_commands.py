"""promote, rollback, policy and waive: options that decide which version people get."""

import json
from pathlib import Path

import pytest

from artifacts.client import Client
from tests.callables import Ask
from tests.pipeline.published import FACTS, NAME, publication


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Three versions with their files, the first in prod, the second there before."""
    client = Client(str(tmp_path / "store"))
    for seed in (1, 2, 3):
        made = publication(seed=seed)
        with client.store.write(made.engine_key, kind="engine", step={}, host={}) as draft:
            (draft.path / "rank0.bin").write_bytes(b"engine" * seed)
        digest = client.store.manifest(made.engine_key).digest
        client.registry.publish(publication(seed=seed, manifest_digest=digest))
    for number in (3, 2, 1):
        client.promote(f"{NAME}:{number}", "prod")
    return client


def test_a_promotion_expects_what_it_is_told_to(ask: Ask, client: Client):
    for dry in ([], ["--dry-run"]):
        code, _, err = ask("promote", f"{NAME}:2", "prod", "--expect", "7", *dry)
        assert (code, f"{NAME}@prod is at version 1, not version 7; check it" in err) == (1, True)
        assert ask("promote", f"{NAME}:2", "prod", "--new", *dry)[0] == 1
    code, out, _ = ask("promote", f"{NAME}:2", "prod", "--expect", "1", "--dry-run")
    assert (code, out) == (0, f"{NAME}@prod may be version 2 (was 1)\n")
    assert client.registry.aliases(NAME)["prod"] == 1
    assert ask("promote", f"{NAME}:2", "fresh", "--new")[:2] == (0, f"{NAME}@fresh is version 2\n")


def test_a_rollback_goes_to_the_version_that_is_named_if_the_alias_is_where_it_is_expected(
    ask: Ask, client: Client
):
    code, _, err = ask("rollback", f"{NAME}@prod", "--expect", "2")
    assert (code, "is at version 1, not version 2" in err) == (1, True)
    code, out, _ = ask("rollback", f"{NAME}@prod", "--to", "3", "--expect", "1")
    assert (code, out) == (0, f"{NAME}@prod is version 3 again (was 1)\n")
    assert ask("rollback", f"{NAME}@prod", "--to", "2")[0] == 2  # it came from nowhere else


def test_a_policy_asks_for_a_signature_by_a_key_and_gets_it(ask: Ask, client: Client, tmp_path: Path):
    for name in ("ours", "theirs"):
        ask("trust", "keygen", str(tmp_path / name), "--no-passphrase")
    assert ask("registry", "policy", "prod", "--signed-by", str(tmp_path / "ours.pub"))[0] == 0
    refused = ("promote", f"{NAME}:2", "prod")
    assert "signed_by: it has no good signature" in ask(*refused)[2]
    ask("trust", "sign", f"{NAME}:2", "--key", str(tmp_path / "theirs"))
    assert ask(*refused)[0] == 3
    ask("trust", "sign", f"{NAME}:2", "--key", str(tmp_path / "ours"))
    assert ask(*refused)[:2] == (0, f"{NAME}@prod is version 2 (was 1)\n")


def test_a_policy_asks_for_figures_of_the_target_and_for_verdicts(ask: Ask, client: Client):
    assert ask("registry", "policy", "prod", "--measured-on-target", "--verdict", "UNVERIFIED")[0] == 0
    code, _, err = ask("promote", f"{NAME}:2", "prod")
    assert (code, "verdict: " in err) == (3, True)
    facts = {**FACTS, "target": "h200"}
    theirs = publication(seed=9, verdict="UNVERIFIED", origin="imported", facts=facts)
    number = client.registry.publish(theirs)
    code, _, err = ask("promote", f"{NAME}:{number}", "prod")
    assert (code, "measured_on_target: it was built for h200 and measured on no GPU" in err) == (3, True)
    assert "verdict: " not in err
    assert ask("registry", "policy", "prod", "--drop")[0] == 0
    assert ask("--json", "registry", "policy")[1] == "[]\n"
    assert ask("promote", f"{NAME}:2", "prod")[0] == 0


def test_waivers_are_listed_by_version_by_name_and_all(ask: Ask, client: Client):
    ask("registry", "policy", "prod", "--metric", "kl<=0.0001")
    for number in (1, 2):
        waive = ("registry", "waive", f"{NAME}:{number}", "prod", "metrics", "--reason", "r", "--for", "12h")
        assert ask(*waive)[0] == 0

    def listed(*args: str) -> list[str]:
        return [row["version"] for row in json.loads(ask("--json", "registry", "waive", *args)[1])]

    assert listed() == listed(NAME) == [f"{NAME}:1", f"{NAME}:2"]
    assert listed(f"{NAME}:2") == [f"{NAME}:2"]
    assert listed(f"{NAME}@prod") == [f"{NAME}:1"]
    ask("registry", "waive", "--end", "2")
    assert listed(f"{NAME}:2") == []
    assert listed(f"{NAME}:2", "--all") == [f"{NAME}:2"]
    assert "similar names" in ask("registry", "waive", "llama/fp8")[2]
