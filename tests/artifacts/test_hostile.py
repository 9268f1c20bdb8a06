"""A remote store that lies: each lie is refused in words, and nothing is written outside the destination."""

import json
from pathlib import Path

import pytest

from artifacts.client import Client
from artifacts.collection import registries
from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnusable
from artifacts.manifest import FileRecord, Manifest, digests_of, seal
from artifacts.registry.registry import Publication
from artifacts.store.objects import DOCUMENT_BYTES
from artifacts.store.remote import remote_layout
from tests.artifacts.caches import commit
from tests.artifacts.remotes import FILES, PART, opened
from tests.present import present
from tests.servers.s3 import Bucket


@pytest.fixture
def client(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> Client:
    """A consumer of a remote store with one version that its registry knows, and an empty cache."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "home" / "caches"))
    maker = Client(bucket.url, f"sqlite:///{tmp_path / 'registry.db'}")
    present(maker.store.remote)._part_bytes = PART  # small parts, for a store that is made by this commit
    commit(maker.store, key)
    maker.registry.publish(
        Publication(name="demo", engine_key=key, recipe={}, verdict="PASS", facts={"tp": 2})
    )
    maker.store.local.remove(key)
    return Client(bucket.url, maker.registry.url)


def refused(client: Client, tmp_path: Path, match: str, error: type[Exception] = ArtifactCorrupt) -> None:
    """Pulls, and looks that nothing was written but the staging and the cache's own folders."""
    target = tmp_path / "home" / "engines" / "demo"
    outside = {path for path in tmp_path.rglob("*") if path.is_file() and "home" not in path.parts}
    with pytest.raises(error, match=match):
        client.pull("demo", target)
    assert not target.exists()
    assert {p for p in tmp_path.rglob("*") if p.is_file() and "home" not in p.parts} == outside
    beside = target.parent.iterdir() if target.parent.exists() else ()
    assert {path.name for path in beside} <= {".demo.fetch", ".demo.fetch.lock"}


def forged(manifest: Manifest, **changes: object) -> str:
    """The manifest with other values, under a seal that fits: anybody can make one."""
    values = {**manifest.model_dump(mode="json"), **changes}
    names = {name: record["sha256"] for name, record in values["files"].items()}
    own, caches = digests_of(names)
    return seal({**values, "digest": changes.get("digest") or own, "caches": caches})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../escaped", "is not a relative path"),
        ("/tmp/escaped", "is not a relative path"),
        ("a/../../escaped", "is not a relative path"),
        ("a//b", "is not a relative path"),
        ("a\nb", "invisible characters"),
        ("Manifest.JSON", "is reserved"),
        ("ENGINE.json", "differ only by case"),
        ("engine.json/x", "is a file and a directory"),
    ],
)
def test_a_manifest_with_a_name_that_leads_elsewhere_is_refused(
    client: Client, bucket: Bucket, tmp_path: Path, key: str, name: str, said: str
):
    manifest = present(client.store.remote).manifest(key)
    files = {one: record.model_dump() for one, record in manifest.files.items()}
    path = bucket.root / remote_layout.manifest_path(key)
    path.write_text(forged(manifest, files={**files, name: files["engine.json"]}))
    refused(client, tmp_path, said)


@pytest.mark.parametrize("cut", [0, 1, 100, -3])
def test_truncated_json_is_refused(client: Client, bucket: Bucket, tmp_path: Path, key: str, cut: int):
    path = bucket.root / remote_layout.manifest_path(key)
    path.write_bytes(path.read_bytes()[:cut])
    refused(client, tmp_path, f"{bucket.url}/manifests/.*does not match its seal")


def test_a_manifest_of_another_engine_is_refused(
    client: Client, bucket: Bucket, tmp_path: Path, key: str, other_key: str
):
    path, manifest = (
        bucket.root / remote_layout.manifest_path(key),
        present(client.store.remote).manifest(key),
    )
    path.write_text(forged(manifest, key=other_key))
    refused(client, tmp_path, f"is the manifest of {other_key}")


def test_a_manifest_whose_digest_is_not_of_its_files_is_refused(
    client: Client, bucket: Bucket, tmp_path: Path, key: str
):
    path, manifest = (
        bucket.root / remote_layout.manifest_path(key),
        present(client.store.remote).manifest(key),
    )
    path.write_text(forged(manifest, digest="0" * 64))
    refused(client, tmp_path, "is not the digest of the files listed")


def test_a_well_made_manifest_of_other_files_is_not_what_was_published(
    client: Client, bucket: Bucket, tmp_path: Path, key: str
):
    manifest = present(client.store.remote).manifest(key)
    client.registry.publish(
        Publication(name="demo", engine_key=key, manifest_digest=manifest.digest, recipe={"n": 2},
                    verdict="PASS", facts={})
    )  # fmt: skip
    files = {name: record.model_dump() for name, record in manifest.files.items() if name != "empty"}
    (bucket.root / remote_layout.manifest_path(key)).write_text(forged(manifest, files=files))
    refused(
        client,
        tmp_path,
        f"not have engine {key[:12]} with digest {manifest.digest[:16]}: it has another build",
        NotFound,
    )


def huge(index: remote_layout.PartIndex) -> str:
    values = index.model_dump(mode="json")
    return seal({**values, "size": 10**18, "part_bytes": 1})


INDEXES = {
    "truncated": (lambda index: index.to_text()[:50], "does not match its seal"),
    "no list of parts": (lambda index: seal({"version": 1, "size": 1, "part_bytes": 1}), "Field required"),
    "of a larger file": (
        lambda index: index.model_copy(
            update={"size": index.size + PART, "parts": (*index.parts, index.parts[0])}
        ).to_text(),
        "bytes; the manifest says",
    ),
    "of more parts than there could be": (huge, "1,000,000,000,000,000,000 bytes have"),
    "of parts in another order": (
        lambda index: index.model_copy(update={"parts": index.parts[::-1]}).to_text(),
        "is missing|has sha256|bytes, not",
    ),
    "that leads elsewhere": (
        lambda index: seal({**index.model_dump(mode="json"), "parts": ["../../../x"] * len(index.parts)}),
        "should match pattern",
    ),
}


@pytest.mark.parametrize("lie", INDEXES)
def test_an_index_that_lies_is_refused(client: Client, bucket: Bucket, tmp_path: Path, key: str, lie: str):
    change, said = INDEXES[lie]
    path = bucket.root / remote_layout.index_path(
        present(client.store.remote).manifest(key).files["rank0.bin"].sha256
    )
    path.write_text(change(remote_layout.read_index(path.read_text(), "index")))
    refused(client, tmp_path, said)


def test_a_description_too_long_for_memory_is_not_read(
    client: Client, bucket: Bucket, tmp_path: Path, key: str
):
    path = bucket.root / remote_layout.manifest_path(key)
    with path.open("r+b") as file:
        file.truncate(DOCUMENT_BYTES + 1)  # a hole: it costs the disk nothing
    refused(client, tmp_path, "67,108,865 bytes; descriptions of artifacts have at most")


def test_files_larger_than_the_disk_are_refused_before_anything_is_written(
    client: Client, bucket: Bucket, tmp_path: Path, key: str
):
    path, manifest = (
        bucket.root / remote_layout.manifest_path(key),
        present(client.store.remote).manifest(key),
    )
    files = {name: record.model_dump() for name, record in manifest.files.items()}
    files["rank0.bin"] = FileRecord(size=10**18, sha256=files["rank0.bin"]["sha256"]).model_dump()
    path.write_text(forged(manifest, files=files))
    refused(client, tmp_path, "disk full: demo:1 needs 1,000,000,0", StoreUnusable)


@pytest.mark.parametrize("link", ["tuning", "rank0.bin"])
def test_links_in_the_staging_of_a_pull_are_not_followed(
    client: Client, bucket: Bucket, tmp_path: Path, key: str, link: str
):
    """Somebody who may write beside the destination puts a link where a file, or its folder, will be."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "cache").write_bytes(b"mine")
    staging = tmp_path / "home" / "engines" / ".demo.fetch"
    staging.mkdir(parents=True)
    (staging / link).symlink_to(elsewhere if link == "tuning" else elsewhere / "cache")
    target = tmp_path / "home" / "engines" / "demo"
    try:
        client.pull("demo", target)
    except StoreUnusable:
        assert not target.exists()
    else:
        assert {name: (target / name).read_bytes() for name in FILES} == FILES
        assert not any(path.is_symlink() for path in target.rglob("*"))
    assert (elsewhere / "cache").read_bytes() == b"mine"


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"uri": 1}'])
def test_a_list_of_registries_that_cannot_be_read_stops_gc(bucket: Bucket, text: str):
    remote = opened(bucket.url)
    assert remote.id
    (bucket.root / "registries").mkdir()
    (bucket.root / "registries" / "x.json").write_text(text)
    with pytest.raises(StoreUnusable, match="does not say which registry names artifacts of this store"):
        registries.require_all(remote.objects, [])


def test_a_manifest_that_was_taken_away_is_said_to_be_gone(
    client: Client, bucket: Bucket, tmp_path: Path, key: str
):
    (bucket.root / remote_layout.manifest_path(key)).unlink()
    refused(client, tmp_path, f"no artifact {key} in {bucket.url}", NotFound)
    assert json.loads((bucket.root / "store.json").read_text())["layout"] == 1
