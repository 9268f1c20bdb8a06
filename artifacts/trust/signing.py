"""Signatures over the files of an artifact in the format of OpenSSF Model Signing.

A signature lists every file with its sha256, caches included, so that it covers the same files as the
manifest and `model_signing verify key` accepts it for a pulled directory. The sums come from the manifest:
signing hashes nothing. If another build replaced the caches of a version, its signature covers only the
engine: the rule `signed_by` of a policy accepts that, checks of pulled files do not.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from artifacts import digest
from artifacts.errors import KeyUnusable, NotTrusted
from artifacts.manifest import MANIFEST, VERSION, Manifest, Sha256, digests_of
from artifacts.trust.bundle import STATEMENT, PrivateKey, open_bundle, read_claims, sign_statement
from artifacts.version import VersionRecord

SIGNATURE = "https://model_signing/signature/v1.0"

SIGNATURES, PROVENANCE, CARD, LICENCES = "signatures.json", "provenance.json", "card.md", "LICENSES"
"""Files that `pull` writes beside the engine; LICENSES is the directory of the REUSE specification."""

BESIDE = (CARD, LICENCES, MANIFEST, PROVENANCE, SIGNATURES, VERSION)
"""Names at the top of a pulled directory that do not belong to the artifact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature in the registry; unverified until `verified` or `require_signed`."""

    manifest_digest: str
    key_id: str
    bundle: str
    """Text of the bundle."""
    signed_at: datetime
    """UTC."""
    signed_by: str
    """`user@host`."""


def sign(manifest: Manifest, key: PrivateKey, *, by: str) -> Signature:
    """A signature over the names and bytes of the artifact's files."""
    return Signature(
        manifest_digest=manifest.digest,
        key_id=key.id,
        bundle=sign_statement(_statement(manifest), key),
        signed_at=datetime.now(UTC),
        signed_by=by,
    )


def accept_signature(bundle: str, manifest: Manifest, public_pem: str, *, by: str) -> Signature:
    """A signature that was made elsewhere; KeyUnusable unless it is by that key and of these files."""
    # The id is only claimed here; the next line verifies the signature by the given key.
    key_id, _ = read_claims(bundle)
    # Here the public key is at hand, so a wrong signature is refused before it is stored.
    if not vouching_keys(manifest, [bundle], {key_id: public_pem}):
        raise KeyUnusable(
            f"the signature by {key_id[:16]} is by another key, or of other files than"
            f" {manifest.digest[:16]}; give the public key of the key that signed this version"
        )
    return Signature(
        manifest_digest=manifest.digest,
        key_id=_id(public_pem),
        bundle=bundle,
        signed_at=datetime.now(UTC),
        signed_by=by,
    )


def verified(bundle: str, manifest_digest: str, public_key_pem: str) -> bool:
    """Whether the key signed the files with a manifest's digest, caches aside; False for a malformed bundle.

    KeyUnusable for a malformed public key.
    """
    statement = open_bundle(bundle, public_key_pem)
    return statement is not None and manifest_digest in _digests(statement)


def states(bundle: str, manifest_digest: str) -> bool:
    """Whether a bundle claims to sign the files with that digest; verifies no signature."""
    try:
        return manifest_digest in _digests(read_claims(bundle)[1])
    except KeyUnusable:
        return False


def require_signed(
    record: VersionRecord,
    manifest: Manifest,
    signatures: Sequence[Signature],
    trusted_keys: Mapping[str, str],
) -> tuple[str, ...]:
    """Ids of the trusted keys that signed the files; NotTrusted, with the existing signers, if none did.

    `trusted_keys` is id -> public key, PEM.
    """
    bundles = {signature.key_id: signature.bundle for signature in signatures}
    return require_vouched(record.reference, manifest, bundles, trusted_keys)


def require_vouched(
    subject: str, manifest: Manifest, bundles: Mapping[str, str], trusted_keys: Mapping[str, str]
) -> tuple[str, ...]:
    """`require_signed` for anything with a manifest; `bundles` is claimed key id -> bundle."""
    require_keys(trusted_keys)
    keys = vouching_keys(manifest, bundles.values(), trusted_keys)
    if keys:
        return keys
    for key, pem in trusted_keys.items():
        # Only for the message: the engine itself may be signed.
        if any(verified(bundle, manifest.digest, pem) for bundle in bundles.values()):
            raise NotTrusted(
                f"{subject} has caches (tuning/) that {key[:16]} did not sign: its engine was signed, but"
                " another build made its caches; have it signed again"
            )
    raise NotTrusted(f"{subject} {_untrusted_message(bundles, trusted_keys)}")


def require_keys(trusted_keys: Mapping[str, str]) -> None:
    """Raise a KeyUnusable if there is no trusted key to check signatures with."""
    if not trusted_keys:
        raise KeyUnusable("no key is trusted; give --trusted-key FILE or set ENGINERY_TRUSTED_KEYS")


def vouching_keys(
    manifest: Manifest, bundles: Iterable[str], trusted_keys: Mapping[str, str]
) -> tuple[str, ...]:
    """Ids of the keys that signed exactly the files of the manifest, its caches among them."""
    bundle_list = tuple(bundles)
    return tuple(
        key
        for key, pem in trusted_keys.items()
        if any(_is_of(bundle, manifest, pem) for bundle in bundle_list)
    )


def _is_of(bundle: str, manifest: Manifest, public_key_pem: str) -> bool:
    statement = open_bundle(bundle, public_key_pem)
    files = {name: record.sha256 for name, record in manifest.files.items()}
    return statement is not None and files in _listed_files(statement)


def _untrusted_message(bundles: Mapping[str, str], trusted_keys: Mapping[str, str]) -> str:
    trusted = ", ".join(key[:16] for key in trusted_keys)
    if not bundles:
        return f"is not signed; have it signed with `enginery trust sign` by a trusted key: {trusted}"
    # A bundle names its key itself; that the name is a trusted one proves nothing.
    false = [key[:16] for key in bundles if key in trusted_keys]
    if false:
        return f"has a signature by {', '.join(false)} that is of other files, or invalid; do not use it"
    signers = ", ".join(key[:16] for key in bundles)
    return f"is signed by {signers}; have it signed by a trusted key: {trusted}"


def _statement(manifest: Manifest) -> dict[str, Any]:
    """The signed statement as `model_signing` 1.1 reads it: resources sorted by the parts of paths."""
    # By parts: "a/b" comes before "a-b/c", unlike in the order of the text.
    names = sorted(manifest.files, key=lambda name: PurePosixPath(name).parts)
    sums = [manifest.files[name].sha256 for name in names]
    total = hashlib.sha256(b"".join(bytes.fromhex(sum_) for sum_ in sums)).hexdigest()
    top_names = {name.partition("/")[0] for name in names}
    return {
        "_type": STATEMENT,
        "subject": [{"name": manifest.key, "digest": {"sha256": total}}],
        "predicateType": SIGNATURE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [name for name in BESIDE if name not in top_names],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": sum_}
                for name, sum_ in zip(names, sums, strict=True)
            ],
        },
    }


class _Serialization(BaseModel):
    method: Literal["files"]


class _Resource(BaseModel):
    name: str
    algorithm: Literal["sha256"]
    digest: Sha256


class _Predicate(BaseModel):
    serialization: _Serialization
    resources: list[_Resource]


class _Signed(BaseModel):
    predicateType: Literal["https://model_signing/signature/v1.0"]  # noqa: N815 the specification's spelling
    predicate: _Predicate


def _digests(statement: Mapping[str, Any]) -> set[str]:
    """Digests that a manifest of the files in a signed statement may have.

    Without caches, as in current manifests, and with them, as in manifests of 0.1.
    """
    return {
        sha256
        for files in _listed_files(statement)
        for sha256 in (digest.of_tree(files), digests_of(files)[0])
    }


def _listed_files(statement: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Name -> sha256 of the files in a signed statement; empty where it does not sign whole files.

    The second mapping is without the files that `pull` writes, for pulled directories signed by another tool.
    """
    try:
        resources = _Signed.model_validate(statement).predicate.resources
    except ValidationError:
        return ()
    files = {resource.name: resource.digest for resource in resources}
    # A name listed twice has two digests: no telling which one was meant.
    if len(files) != len(resources):
        return ()
    own_files = {name: resource for name, resource in files.items() if name.partition("/")[0] not in BESIDE}
    return files, own_files


def _id(public_pem: str) -> str:
    from artifacts.trust import envelope  # the signing library: 60 ms that only signers pay

    return envelope.key_id(public_pem)
