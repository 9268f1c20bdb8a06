"""Signatures over artifacts: made, checked, refused, and read by other programs."""

import base64
import json
import os
import subprocess  # noqa: TID251 other programs check what we signed
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts.client import Client
from artifacts.errors import KeyUnusable, NotTrusted
from artifacts.registry.registry import Publication
from artifacts.store.local import LocalStore
from artifacts.trust.bundle import PrivateKey, make_key, read_private_key, trusted_keys
from artifacts.trust.signing import Signature, accept_signature, require_signed, sign, verified
from tests.present import present

FILES = {"engine.json": b"{}", "rank0.bin": os.urandom(5000), "tuning/cache": b"c", "tuning-notes": b"n"}


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of two private keys."""
    root = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        make_key(root / name, "")
    return {name: root / name for name in ("ours", "theirs")}


def public(path: Path) -> str:
    return path.with_name(path.name + ".pub").read_text()


@pytest.fixture
def client(store: LocalStore, put: Callable[..., None], key: str) -> Client:
    put(key, FILES)
    client = Client(str(store.root))
    client.registry.publish(
        Publication(name="demo/fp8", engine_key=key, recipe={}, verdict="PASS", facts={"tp": 2},
                    manifest_digest=store.manifest(key).digest)
    )  # fmt: skip
    return client


@pytest.fixture
def signature(store: LocalStore, put: Callable[..., None], key: str, keys: dict[str, Path]) -> Signature:
    put(key, FILES)
    return sign(store.manifest(key), read_private_key(keys["ours"]), by="me@here")


def test_a_signature_is_by_its_key_and_of_its_files_only(
    store: LocalStore,
    key: str,
    other_key: str,
    put: Callable[..., None],
    signature: Signature,
    keys: dict[str, Path],
):
    manifest = store.manifest(key)
    assert signature.manifest_digest == manifest.digest
    assert verified(signature.bundle, manifest.digest, public(keys["ours"]))
    assert not verified(signature.bundle, manifest.digest, public(keys["theirs"]))
    put(other_key, FILES | {"rank0.bin": b"other"})
    assert not verified(signature.bundle, store.manifest(other_key).digest, public(keys["ours"]))


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_changed_byte_of_a_bundle_that_matters_is_accepted(
    store: LocalStore, key: str, signature: Signature, keys: dict[str, Path], data
):
    manifest, text = store.manifest(key), signature.bundle
    at = data.draw(st.integers(0, len(text) - 1))
    new = data.draw(st.characters(max_codepoint=0x2FF))
    changed = text[:at] + new + text[at + 1 :]
    if verified(changed, manifest.digest, public(keys["ours"])):
        # only what nobody signs: the hint, fields that are not read, spaces, unused bits of base64
        assert signed_bytes(text) == signed_bytes(changed)


def signed_bytes(bundle: str) -> tuple[bytes, bytes]:
    envelope = json.loads(bundle)["dsseEnvelope"]
    return base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"mediaType": 1}', "[" * 5000, "\ud800", '"\\ud800"', "1e999"]
)
def test_text_that_is_no_bundle_is_not_verified(text: str, keys: dict[str, Path], key: str):
    assert not verified(text, key, public(keys["ours"]))


def test_a_signed_statement_of_another_kind_is_no_signature(
    store: LocalStore, key: str, signature: Signature, keys: dict[str, Path]
):
    from artifacts.trust.bundle import open_bundle, sign_statement

    digest, pem, ours = store.manifest(key).digest, public(keys["ours"]), read_private_key(keys["ours"])
    statement = present(open_bundle(signature.bundle, pem))
    assert verified(sign_statement(statement, ours), digest, pem)
    changes: list[dict[str, Any]] = [
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicate": {}},
        {"predicate": {**statement["predicate"], "serialization": {"method": "shards"}}},
        {"predicate": {**statement["predicate"], "resources": statement["predicate"]["resources"] * 2}},
    ]
    for change in changes:
        assert not verified(sign_statement(statement | change, ours), digest, pem)


def test_who_must_have_signed_is_said_with_who_did(
    store: LocalStore, client: Client, key: str, signature: Signature, keys: dict[str, Path]
):
    record, manifest = client.resolve("demo/fp8"), store.manifest(key)
    ours, theirs = (trusted_keys([path.with_name(path.name + ".pub")]) for path in keys.values())
    assert require_signed(record, manifest, [signature], ours | theirs) == tuple(ours)
    with pytest.raises(
        NotTrusted, match=r"demo/fp8:1 is not signed; have it signed .* by a trusted key: [0-9a-f]{16}$"
    ):
        require_signed(record, manifest, [], ours)
    with pytest.raises(
        NotTrusted,
        match=f"is signed by {signature.key_id[:16]}; have it signed by a trusted key: {next(iter(theirs))[:16]}",
    ):
        require_signed(record, manifest, [signature], theirs)
    with pytest.raises(KeyUnusable, match="no key is trusted"):
        require_signed(record, manifest, [signature], {})


def test_a_signature_of_other_files_is_not_trusted(
    store: LocalStore,
    put: Callable[..., None],
    client: Client,
    other_key: str,
    signature: Signature,
    keys: dict[str, Path],
):
    put(other_key, {"engine.json": b"[]"})
    moved = Signature(
        manifest_digest=store.manifest(other_key).digest, key_id=signature.key_id, bundle=signature.bundle,
        signed_at=signature.signed_at, signed_by="me@here",
    )  # fmt: skip
    ours = trusted_keys([keys["ours"].with_name("ours.pub")])
    with pytest.raises(NotTrusted, match="is of other files, or invalid"):
        require_signed(client.resolve("demo/fp8"), store.manifest(other_key), [moved], ours)


def test_a_key_with_a_passphrase_needs_it(
    tmp_path: Path, store: LocalStore, put: Callable[..., None], key: str
):
    made = make_key(tmp_path / "key", "a long secret")
    put(key, FILES)
    assert b"ENCRYPTED" in (tmp_path / "key").read_bytes()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read_private_key(tmp_path / "key", "a long secret").id == made
    assert list(trusted_keys([tmp_path])) == [made]
    for wrong in ("", "another"):
        with pytest.raises(KeyUnusable, match="give its"):
            read_private_key(tmp_path / "key", wrong)
    assert "secret" not in repr(PrivateKey(b"x", "a long secret"))


def test_a_key_is_never_replaced(tmp_path: Path):
    make_key(tmp_path / "key", "")
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(KeyUnusable, match="key exists; a key is never replaced"):
        make_key(tmp_path / "key", "")
    (tmp_path / "key").rename(tmp_path / "moved")
    with pytest.raises(KeyUnusable, match=r"key\.pub exists"):
        make_key(tmp_path / "key", "")
    assert (tmp_path / "moved").read_bytes() == before
    assert not (tmp_path / "key").exists()


def test_keys_that_cannot_be_used_are_refused_by_file(tmp_path: Path, keys: dict[str, Path]):
    (tmp_path / "open").write_bytes(keys["ours"].read_bytes())
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "no.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    (tmp_path / "empty").write_text("nothing here")
    with pytest.raises(KeyUnusable, match="everybody may read"):
        read_private_key(tmp_path / "open")
    with pytest.raises(KeyUnusable, match=r"the key cannot be read: \S*absent: no such file"):
        read_private_key(tmp_path / "absent")
    with pytest.raises(KeyUnusable, match=r"no\.pub: the public key cannot be read"):
        trusted_keys([tmp_path / "no.pub"])
    with pytest.raises(KeyUnusable, match="empty: has no public key"):
        trusted_keys([tmp_path / "empty"])


def test_a_file_of_several_trusted_keys_with_words_between_them_is_read(
    tmp_path: Path, keys: dict[str, Path]
):
    (tmp_path / "trusted").write_text(
        f"# release\n{public(keys['ours'])}\n# other team\n{public(keys['theirs'])}"
    )
    assert len(trusted_keys([tmp_path / "trusted"])) == 2


@pytest.fixture
def pulled(client: Client, tmp_path: Path) -> Path:
    return client.pull("demo/fp8", tmp_path / "engine")


@pytest.mark.slow
def test_openssl_verifies_what_was_signed(signature: Signature, keys: dict[str, Path], tmp_path: Path):
    envelope = json.loads(signature.bundle)["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    (tmp_path / "said").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "dgst", "-sha256", "-verify", f"{keys['ours']}.pub", "-signature"]
    assert (
        subprocess.run(
            [*command, tmp_path / "sig", tmp_path / "said"], capture_output=True, check=False
        ).stdout
        == b"Verified OK\n"
    )


def model_signing(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_model_signing_verifies_a_pulled_directory_and_sees_a_changed_byte(
    signature: Signature, pulled: Path, keys: dict[str, Path], tmp_path: Path
):
    (tmp_path / "model.sig").write_text(signature.bundle)
    command = (
        "verify",
        "key",
        pulled,
        "--signature",
        tmp_path / "model.sig",
        "--public_key",
        f"{keys['ours']}.pub",
    )
    done = model_signing(*command)
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout
    (pulled / "tuning" / "cache").write_bytes(b"C")
    done = model_signing(*command)
    assert done.returncode == 1
    assert "Hash mismatch for" in done.stderr
    assert "tuning/cache" in done.stderr


@pytest.mark.slow
def test_what_model_signing_signed_is_received(
    client: Client, store: LocalStore, key: str, pulled: Path, keys: dict[str, Path], tmp_path: Path
):
    done = model_signing(
        "sign", "key", pulled, "--signature", tmp_path / "sig", "--private_key", keys["ours"]
    )
    assert done.returncode == 0, done.stderr
    text, manifest = (tmp_path / "sig").read_text(), store.manifest(key)
    took = accept_signature(text, manifest, public(keys["ours"]), by="me@here")
    assert took.key_id == read_private_key(keys["ours"]).id
    assert verified(took.bundle, manifest.digest, public(keys["ours"]))
    with pytest.raises(KeyUnusable, match="is by another key, or of other files"):
        accept_signature(text, manifest, public(keys["theirs"]), by="me@here")


def test_checking_needs_the_signing_library_and_importing_the_module_does_not(
    run_python: Callable[[str], str],
):
    code = (
        "import sys, artifacts.client, artifacts.trust.signing;"
        "print(sorted({'securesystemslib', 'cryptography', 'standardwebhooks'} & sys.modules.keys()))"
    )
    assert run_python(code).strip() == "[]"
