"""What comes with a pulled engine: signatures, provenance, licences; and what `verify` says of them."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from artifacts import digest
from artifacts.client import Client, verify_pulled
from artifacts.errors import KeyUnusable, NotFound, NotTrusted
from artifacts.manifest import VERSION, seal, unseal
from artifacts.registry.endorsement import Endorsements
from artifacts.registry.registry import Publication
from artifacts.store.local import LocalStore
from artifacts.trust import papers, provenance
from artifacts.trust.bundle import PrivateKey, make_key, read_private_key, trusted_keys
from artifacts.trust.signing import sign, verified
from tests.present import present

REVISION = "0" * 39 + "1"
SOURCE = {
    "repo": "org/model", "revision": REVISION,
    "licence": {"id": "Apache-2.0", "stated": "README.md", "texts": {"LICENSE": "Apache", "../NOTICE": "no"}},
    "draft_licence": {"id": "MIT", "stated": "README.md", "texts": {"LICENSE": "MIT"}},
}  # fmt: skip


@pytest.fixture
def client(store: LocalStore, put: Callable[..., None], key: str) -> Client:
    put(key, {"engine.json": b"{}", "rank0.bin": b"weights"})
    client = Client(str(store.root))
    client.registry.publish(
        Publication(name="demo/fp8", engine_key=key, recipe={"name": "demo/fp8"}, verdict="PASS", facts={"tp": 2},
                    manifest_digest=store.manifest(key).digest, source=SOURCE, lineage={"source": "a" * 64, "engine": key})
    )  # fmt: skip
    return client


@pytest.fixture
def private(tmp_path: Path) -> PrivateKey:
    make_key(tmp_path / "keys" / "ours", "")
    return read_private_key(tmp_path / "keys" / "ours")


@pytest.fixture
def keys(private: PrivateKey, tmp_path: Path) -> dict[str, str]:
    return trusted_keys([tmp_path / "keys"])


@pytest.fixture
def endorsed(client: Client, store: LocalStore, key: str, private: PrivateKey) -> Client:
    """The client of a version that was signed, and whose provenance was."""
    record, manifest = client.resolve("demo/fp8"), store.manifest(key)
    kept = Endorsements(client.registry.database)
    kept.add_signature(sign(manifest, private, by="me@here"), key)
    kept.add_attestation(provenance.attest(record, manifest, private, by="me@here"), manifest.digest)
    return client


def test_a_signed_version_is_pulled_with_what_vouches_for_it(
    endorsed: Client, keys: dict[str, str], tmp_path: Path, all_files: Callable[[Path], list[str]]
):
    endorsed.trusted_keys = keys
    pulled = endorsed.pull("demo/fp8", tmp_path / "engine")
    assert all_files(pulled) == [
        "LICENSES/LICENSE", "LICENSES/draft-LICENSE", "engine.json", "manifest.json", "provenance.json",
        "rank0.bin", "signatures.json", "version.json",
    ]  # fmt: skip
    assert (pulled / "LICENSES" / "draft-LICENSE").read_text() == "MIT"
    assert verify_pulled(pulled) == []
    assert papers.require_trusted(pulled, keys) == tuple(keys)
    kept = json.loads((pulled / "signatures.json").read_text())
    assert list(kept["signatures"]) == list(kept["attestations"]) == list(keys)


def test_a_version_without_a_trusted_signature_is_not_pulled(
    client: Client, keys: dict[str, str], tmp_path: Path
):
    client.trusted_keys = keys
    with pytest.raises(NotTrusted, match="demo/fp8:1 is not signed"):
        client.pull("demo/fp8", tmp_path / "engine")
    assert not (tmp_path / "engine").exists()
    pulled = Client(str(client.store.root)).pull("demo/fp8", tmp_path / "engine")  # who asks for none gets it
    with pytest.raises(NotTrusted, match="engine is not signed"):
        papers.require_trusted(pulled, keys)


def test_files_that_replaced_those_published_are_not_pulled(
    endorsed: Client, store: LocalStore, put: Callable[..., None], key: str, tmp_path: Path
):
    store.discard(key)
    put(key, {"engine.json": b"{}", "rank0.bin": b"WEIGHTS"})
    said = r"demo/fp8:1: .* it has another build of that key, with digest [0-9a-f]{16}, which no version is"
    with pytest.raises(NotFound, match=said):
        endorsed.pull("demo/fp8", tmp_path / "engine")


def test_caches_of_another_build_are_said_to_be_unsigned_and_the_engine_to_be_signed(
    endorsed: Client,
    put: Callable[..., None],
    key: str,
    keys: dict[str, str],
    private: PrivateKey,
    tmp_path: Path,
):
    store = endorsed.store
    signed, files = store.manifest(key), {"engine.json": b"{}", "rank0.bin": b"weights"}
    store.remove(key)
    put(key, {**files, "tuning/kernels": b"of another build"})
    (key_id,) = keys
    manifest, kept = store.manifest(key), Endorsements(endorsed.registry.database)
    assert manifest.digest == signed.digest
    (one,) = kept.signatures(manifest.digest)
    assert verified(one.bundle, manifest.digest, keys[key_id])  # what a policy of an alias asks for

    anybody = endorsed.pull("demo/fp8", tmp_path / "anybody")
    assert verify_pulled(anybody) == []
    unsigned = rf"has caches \(tuning/\) that {key_id[:16]} did not sign: its engine was signed"
    with pytest.raises(NotTrusted, match=f"anybody {unsigned}"):
        papers.require_trusted(anybody, keys)
    endorsed.trusted_keys = keys
    with pytest.raises(NotTrusted, match=f"demo/fp8:1 {unsigned}"):
        endorsed.pull("demo/fp8", tmp_path / "mine")
    kept.add_signature(sign(manifest, private, by="me@here"), key)
    assert papers.require_trusted(endorsed.pull("demo/fp8", tmp_path / "mine"), keys) == (key_id,)


def test_each_build_of_a_key_keeps_its_own_provenance_and_hears_of_its_own_signatures(
    endorsed: Client,
    store: LocalStore,
    put: Callable[..., None],
    key: str,
    private: PrivateKey,
    keys: dict[str, str],
):
    first = store.manifest(key)
    store.remove(key)
    put(key, {"engine.json": b"{}", "rank0.bin": b"another build"})
    second, kept = store.manifest(key), Endorsements(endorsed.registry.database)
    record = endorsed.resolve("demo/fp8")
    endorsed.registry.publish(
        Publication(name="demo/fp8", engine_key=key, manifest_digest=second.digest, recipe=record.recipe,
                    verdict="PASS", facts={}, lineage=record.lineage)
    )  # fmt: skip
    kept.add_attestation(provenance.attest(record, second, private, by="me@here"), second.digest)
    for manifest in (first, second):
        (one,) = kept.attestations(key, manifest.digest)
        assert provenance.verified_predicate(one.bundle, manifest, *keys.values()) is not None
    told = [event.detail["number"] for event in endorsed.log("demo/fp8") if event.kind == "signed"]
    assert told == [1, 1, 2]


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("name", ["signatures.json", "provenance.json", "LICENSES/LICENSE"])
@pytest.mark.parametrize("damage", [cut, lambda path: path.unlink()])
def test_damage_to_what_came_with_a_version_is_named(endorsed: Client, tmp_path: Path, name: str, damage):
    pulled = endorsed.pull("demo/fp8", tmp_path / "engine")
    damage(pulled / name)
    (problem,) = verify_pulled(pulled)
    assert problem.startswith(f"{name}: ")


def test_a_signature_of_other_files_is_named_even_where_sums_were_made_to_fit(
    endorsed: Client, put: Callable[..., None], other_key: str, private: PrivateKey, tmp_path: Path
):
    pulled = endorsed.pull("demo/fp8", tmp_path / "engine")
    put(other_key, {"engine.json": b"other"})
    false = sign(endorsed.store.manifest(other_key), private, by="me")
    text = json.dumps({"signatures": {false.key_id: json.loads(false.bundle)}})
    (pulled / "signatures.json").write_text(text)
    rewrite(
        pulled,
        lambda version: version["beside"].update(
            {"signatures.json": digest.of_file(pulled / "signatures.json")}
        ),
    )
    assert verify_pulled(pulled) == [
        f"signatures.json: the signature by {false.key_id[:16]} is of other files"
    ]


def rewrite(pulled: Path, change) -> None:
    version = unseal((pulled / VERSION).read_text(), VERSION)
    version.pop("seal", None)
    change(version)
    (pulled / VERSION).write_text(seal(version))


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "engine.py", "LICENSES/../x", "LICENSES/a/b", "version.json"]
)
def test_a_version_cannot_excuse_any_file(endorsed: Client, tmp_path: Path, name: str):
    pulled = endorsed.pull("demo/fp8", tmp_path / "engine")
    rewrite(pulled, lambda version: version["beside"].update({name: "0" * 64}))
    assert verify_pulled(pulled) == [f"version.json: records {name!r}, a name that pull never writes"]


def test_a_directory_pulled_before_there_were_papers_is_still_verified(endorsed: Client, tmp_path: Path):
    pulled = endorsed.pull("demo/fp8", tmp_path / "engine")
    rewrite(pulled, lambda version: version.pop("beside"))
    for name in ("signatures.json", "provenance.json", "LICENSES/LICENSE", "LICENSES/draft-LICENSE"):
        (pulled / name).unlink()
    assert verify_pulled(pulled) == []


def test_a_broken_row_of_the_registry_stops_nobody_from_pulling(
    endorsed: Client, key: str, store: LocalStore, tmp_path: Path, private: PrivateKey
):
    made = sign(store.manifest(key), private, by="me")
    Endorsements(endorsed.registry.database).add_signature(replace(made, key_id="b" * 64, bundle="{"), key)
    pulled = endorsed.pull("demo/fp8", tmp_path / "engine")
    assert list(json.loads((pulled / "signatures.json").read_text())["signatures"]) == [private.id]
    (pulled / "signatures.json").write_text("[]")
    with pytest.raises(KeyUnusable, match=r"signatures\.json: has no signatures"):
        papers.signatures_in(pulled)


def test_files_of_the_artifact_itself_are_never_written_over(
    store: LocalStore, put: Callable[..., None], other_key: str, client: Client, tmp_path: Path
):
    put(other_key, {"LICENSES/LICENSE": b"its own", "engine.json": b"{}"})
    client.registry.publish(
        Publication(name="demo/own", engine_key=other_key, recipe={}, verdict="PASS", facts={}, source=SOURCE)
    )
    pulled = client.pull("demo/own", tmp_path / "engine")
    assert [path.name for path in (pulled / "LICENSES").iterdir()] == ["LICENSE"]
    assert (pulled / "LICENSES" / "LICENSE").read_bytes() == b"its own"
    assert verify_pulled(pulled) == []


def test_provenance_is_a_statement_as_in_toto_and_slsa_define_it(endorsed: Client, key: str, tmp_path: Path):
    pulled = endorsed.pull("demo/fp8", tmp_path / "engine")
    made = json_format.Parse((pulled / "provenance.json").read_text(), statement_pb2.Statement())
    Statement.copy_from_pb(made).validate()
    assert {one.name: one.digest["sha256"] for one in made.subject}["rank0.bin"] == digest.of_file(
        pulled / "rank0.bin"
    )
    predicate = json_format.Parse(json_format.MessageToJson(made.predicate), provenance_pb2.Provenance())
    assert predicate.build_definition.external_parameters["recipe"]["name"] == "demo/fp8"
    found = {one.name: one for one in predicate.build_definition.resolved_dependencies}
    assert found["model"].uri == f"pkg:huggingface/org/model@{REVISION}"
    assert found["model"].digest["gitCommit"] == REVISION
    assert found["source"].uri == f"urn:enginery:artifact:{'a' * 64}"
    assert "engine" not in found
    assert predicate.run_details.metadata.invocation_id == key
    assert (
        predicate.run_details.metadata.started_on.ToDatetime()
        <= predicate.run_details.metadata.finished_on.ToDatetime()
    )


def test_signed_provenance_is_of_these_files_and_by_its_key(
    endorsed: Client, put: Callable[..., None], key: str, other_key: str, keys: dict[str, str], tmp_path: Path
):
    store = endorsed.store
    (kept,) = Endorsements(endorsed.registry.database).attestations(key, store.manifest(key).digest)
    (pem,) = keys.values()
    assert (
        present(provenance.verified_predicate(kept.bundle, store.manifest(key), pem))["runDetails"][
            "metadata"
        ]["invocationId"]
        == key
    )
    put(other_key, {"engine.json": b"other"})
    assert provenance.verified_predicate(kept.bundle, store.manifest(other_key), pem) is None
    make_key(tmp_path / "theirs", "")
    assert (
        provenance.verified_predicate(kept.bundle, store.manifest(key), (tmp_path / "theirs.pub").read_text())
        is None
    )
    payload = json.loads(base64.b64decode(json.loads(kept.bundle)["dsseEnvelope"]["payload"]))
    assert payload["predicateType"] == "https://slsa.dev/provenance/v1"


def test_each_key_signs_once_and_the_log_says_who(
    endorsed: Client, store: LocalStore, key: str, private: PrivateKey
):
    kept = Endorsements(endorsed.registry.database)
    again = sign(store.manifest(key), private, by="you@there")
    kept.add_signature(again, key)
    assert kept.signatures(again.manifest_digest) == [again]
    details = [event.detail for event in endorsed.registry.events("demo/fp8") if event.kind == "signed"]
    assert [(one["number"], one["kind"]) for one in details] == [
        (1, "signature"),
        (1, "provenance"),
        (1, "signature"),
    ]
    assert {one["key_id"] for one in details} == {private.id}
