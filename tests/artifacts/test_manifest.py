"""The manifest: which names it takes, and that no byte of it changes unseen."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from artifacts import digest
from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import (
    FileRecord,
    Manifest,
    check_name,
    check_names,
    digests_of,
    is_cache,
    read_manifest,
    seal,
    unseal,
)

FILES = {
    "config.json": FileRecord(size=2, sha256="a" * 64),
    "tuning/cache.bin": FileRecord(size=0, sha256="b" * 64),
}
SUMS = {name: record.sha256 for name, record in FILES.items()}
MANIFEST = Manifest(
    version=2,
    kind="engine",
    key="c" * 64,
    digest=digest.of_tree({"config.json": "a" * 64}),
    caches=digest.of_tree({"tuning/cache.bin": "b" * 64}),
    step={"kind": "engine", "params": {"tp": 2, "note": "grüße"}},
    files=FILES,
    host={"cpu": "avx2"},
    seconds=1.5,
    peak_memory_bytes=None,
    created_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
)
TEXT = MANIFEST.to_text()


def test_what_is_written_is_read_back():
    assert read_manifest(TEXT, "m") == MANIFEST
    assert MANIFEST.size_bytes == 2


@given(st.integers(0, len(TEXT.encode()) - 1), st.integers(1, 255))
def test_any_changed_byte_is_found(place, flip):
    content = bytearray(TEXT.encode())
    content[place] ^= flip
    with pytest.raises(ArtifactCorrupt, match="m: does not match its seal"):
        read_manifest(content.decode(errors="replace"), "m")


@given(st.integers(0, len(TEXT) - 1))
def test_a_truncated_manifest_is_found(length):
    with pytest.raises(ArtifactCorrupt, match="does not match its seal"):
        read_manifest(TEXT[:length], "m")


@given(st.dictionaries(st.text(), st.integers() | st.text(), min_size=1))
def test_seals_hold_any_object(values):
    assert unseal(seal(values), "here") == values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seconds": 1e308}, "'seconds': Input should be less than or equal to 315360000"),
        ({"seconds": 1e12}, "'seconds': Input should be less than or equal to 315360000"),
        (
            {"created_at": "0001-01-01T00:00:00Z"},
            "created_at 0001-01-01T00:00:00.00:00 is not in the years 1970",
        ),
        ({"created_at": "9999-12-31T23:59:59-23:59"}, "is not in the years 1970 to 9000"),
        ({"created_at": "2026-01-02T03:04:05"}, "'created_at': Input should have timezone info"),
        ({"peak_memory_bytes": 10**30}, "'peak_memory_bytes': Input should be less than"),
        ({"kind": "../x"}, "'kind': String should match pattern"),
        ({"kind": "banana"}, "kind is 'banana', and step.kind 'engine'"),
        ({"step": {"kind": 3}}, "step.kind is not a string"),
        ({"step": {"kind": "engine", "builder": []}}, "step.builder is not a string"),
        ({"step": {"kind": "engine", "tools": [1]}}, "step.tools is not an object of tool -> version"),
        (
            {"step": {"kind": "engine", "tools": {"a": {}}}},
            "step.tools is not an object of tool -> version",
        ),
    ],
)
def test_a_sealed_manifest_with_absurd_values_is_refused(change: dict[str, Any], said: str):
    absurd = seal({**MANIFEST.model_dump(mode="json"), **change})
    with pytest.raises(ArtifactCorrupt, match=f"m: .*{said}.*not written by this version"):
        read_manifest(absurd, "m")


def test_a_newer_manifest_is_refused_by_number():
    newer = seal({**MANIFEST.model_dump(mode="json"), "version": 3})
    with pytest.raises(ArtifactCorrupt, match="manifest version 3; this version reads 1 and 2"):
        read_manifest(newer, "m")


def test_unknown_fields_are_refused_with_their_name():
    with pytest.raises(ArtifactCorrupt, match="m: 'colour': Extra inputs"):
        read_manifest(seal({**MANIFEST.model_dump(mode="json"), "colour": "red"}), "m")


def test_the_digest_must_be_of_the_files_listed():
    with pytest.raises(ValidationError, match="is not the digest of the files listed"):
        MANIFEST.model_validate({**MANIFEST.model_dump(), "digest": "d" * 64})


def test_caches_lie_outside_the_digest_and_are_sealed_by_their_own():
    warmer = {**FILES, "tuning/cache.bin": FileRecord(size=9, sha256="e" * 64)}
    caches = digests_of({name: record.sha256 for name, record in warmer.items()})[1]
    other = MANIFEST.model_validate({**MANIFEST.model_dump(), "files": warmer, "caches": caches})
    assert (other.digest, other.address) == (MANIFEST.digest, MANIFEST.address)
    assert other.caches != MANIFEST.caches
    with pytest.raises(ValidationError, match=r"caches .* is not the digest of the caches listed"):
        MANIFEST.model_validate({**MANIFEST.model_dump(), "files": warmer})


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("tuning/trials.json", True),
        ("draft/tuning/kernels/a.bin", True),
        ("tuning", False),
        ("tuning.json", False),
        ("prompt_tuning/a", False),
        ("rank0.engine", False),
    ],
)
def test_what_lies_in_a_directory_of_that_name_is_a_cache(name: str, outside: bool):
    assert is_cache(name) is outside
    assert check_name(name) == name


def test_a_manifest_of_0_1_is_read_as_it_was_meant_and_written_as_it_was():
    values = {name: one for name, one in MANIFEST.model_dump(mode="json").items() if name != "caches"}
    text = seal({**values, "version": 1, "digest": digest.of_tree(SUMS)})
    old = read_manifest(text, "m")
    assert old.to_text() == text
    assert (old.digest, old.caches) == (digest.of_tree(SUMS), None)
    with pytest.raises(ArtifactCorrupt, match="is not the digest of the files listed"):
        read_manifest(seal({**values, "version": 1}), "m")


@pytest.mark.parametrize("name", ["a", "a/b.json", "..a", "a..b/c", ".hidden", "ü/ä b"])
def test_relative_names_are_taken(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b"])
def test_names_that_lead_elsewhere_are_refused(name: str):
    with pytest.raises(ValueError, match="is not a relative path"):
        check_name(name)


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\x1b[2Jb", "a\u202egpj.exe", "a\u2028b", "\x7f"])
def test_names_that_do_not_look_as_they_are_are_refused(name: str):
    with pytest.raises(ValueError, match="invisible characters"):
        check_name(name)


@pytest.mark.parametrize(
    "names", [["Rank0.bin", "rank0.bin"], ["a/B", "A/b"], ["\u00fc", "u\u0308"], ["ss", "\u00df"]]
)
def test_names_that_some_disk_cannot_tell_apart_are_refused(names: list[str]):
    with pytest.raises(ValueError, match="differ only by case"):
        check_names(names)
    check_names(names[:1])


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b/c", "A"]])
def test_a_name_that_is_a_file_and_a_directory_is_refused(names: list[str]):
    with pytest.raises(ValueError, match="is a file and a directory of"):
        check_names(names)


def test_a_name_longer_than_disks_take_is_refused():
    assert check_name("d/" + "x" * 255)
    with pytest.raises(ValueError, match="more than 255 bytes"):
        check_name("d/" + "\u00fc" * 128)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a\nb", "MANIFEST.JSON", "c/.."])
def test_a_sealed_manifest_with_a_hostile_name_is_refused_whoever_sealed_it(name: str):
    files = {name: FILES["config.json"].model_dump()}
    values = {**MANIFEST.model_dump(mode="json"), "files": files}
    values["digest"] = digest.of_tree({name: "a" * 64})
    with pytest.raises(ArtifactCorrupt, match=r"m: file name .*; it was not written by this version"):
        read_manifest(seal(values), "m")


def test_sealed_text_that_is_no_json_is_refused():
    for body in ("nonsense", '{"a": ' + "[" * 100_000):
        text = f'{body},\n  "seal": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'
        with pytest.raises(ArtifactCorrupt, match="sealed but not JSON"):
            unseal(text, "m")


@pytest.mark.parametrize("name", ["LICENSE", "license.txt", "README.md", "docs/card.md", "a/manifest.json"])
def test_licences_and_names_below_directories_are_free(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["manifest.json", "version.json", "signatures.json", "provenance.json", "card.md", "Card.MD"]
)
def test_names_of_the_store_are_refused(name: str):
    with pytest.raises(ValueError, match=f"{name}' is reserved"):
        check_name(name)


def test_names_that_are_not_utf8_are_refused():
    with pytest.raises(UnicodeEncodeError, match="surrogates"):
        check_name("a\udcff")
