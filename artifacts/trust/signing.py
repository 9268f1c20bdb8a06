"""Signatures over the files of an artifact, in the form of OpenSSF Model Signing, and who must have signed.

A signature lists every file with its sha256, caches too, so that it says the same as the manifest's digests
and `model_signing verify key` accepts it for a pulled directory. The manifest has the sums already: nothing
is hashed to sign. A version whose caches another build made anew is signed only as far as its engine goes: a
policy of an alias, which asks for the engine, takes it; who asks for signed files does not.
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
from artifacts.trust.bundle import STATEMENT, PrivateKey, bundled, claimed, opened
from artifacts.version import VersionRecord

SIGNATURE = "https://model_signing/signature/v1.0"

SIGNATURES, PROVENANCE, CARD, LICENCES = "signatures.json", "provenance.json", "card.md", "LICENSES"
"""What `pull` writes beside the files; LICENSES is the directory that the REUSE specification names."""

BESIDE = (CARD, LICENCES, MANIFEST, PROVENANCE, SIGNATURES, VERSION)
"""Names at the top of a pulled directory that are not the artifact's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature as the registry keeps it; nothing is checked before `verified` or `require_signed`."""

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
        bundle=bundled(_statement(manifest), key),
        signed_at=datetime.now(UTC),
        signed_by=by,
    )


def received(bundle: str, manifest: Manifest, public_pem: str, *, by: str) -> Signature:
    """A signature that was made elsewhere; a KeyUnusable unless it is by that key, of these files."""
    key_id, _ = claimed(bundle)
    if not vouching(manifest, [bundle], {key_id: public_pem}):
        raise KeyUnusable(
            f"the signature by {key_id[:16]} is not by this key, or of other files than"
            f" {manifest.digest[:16]}; give the public half of the key that signed this version"
        )
    return Signature(
        manifest_digest=manifest.digest,
        key_id=_id(public_pem),
        bundle=bundle,
        signed_at=datetime.now(UTC),
        signed_by=by,
    )


def verified(bundle: str, manifest_digest: str, public_key_pem: str) -> bool:
    """Whether the key signed the files whose digest a manifest states; caches do not count.

    Broken text is a no. A public key that cannot be read is a KeyUnusable.
    """
    statement = opened(bundle, public_key_pem)
    return statement is not None and manifest_digest in _digests(statement)


def states(bundle: str, manifest_digest: str) -> bool:
    """Whether a bundle claims to sign the files of that digest; nobody's key is asked."""
    try:
        return manifest_digest in _digests(claimed(bundle)[1])
    except KeyUnusable:
        return False


def require_signed(
    record: VersionRecord,
    manifest: Manifest,
    signatures: Sequence[Signature],
    trusted_keys: Mapping[str, str],
) -> tuple[str, ...]:
    """The trusted keys that vouch for the files; none is a NotTrusted that says which signatures there are.

    `trusted_keys` is id -> public key, PEM.
    """
    bundles = {one.key_id: one.bundle for one in signatures}
    return require_vouched(record.reference, manifest, bundles, trusted_keys)


def require_vouched(
    what: str, manifest: Manifest, bundles: Mapping[str, str], trusted_keys: Mapping[str, str]
) -> tuple[str, ...]:
    """`require_signed` of anything with a manifest; `bundles` is key id -> bundle, as somebody says."""
    require_some(trusted_keys)
    found = vouching(manifest, bundles.values(), trusted_keys)
    if found:
        return found
    for key, pem in trusted_keys.items():
        if any(verified(bundle, manifest.digest, pem) for bundle in bundles.values()):
            raise NotTrusted(
                f"{what} has caches (tuning/) that {key[:16]} did not sign: its engine is the one that was"
                " signed, and another build made the caches; have it signed again"
            )
    raise NotTrusted(f"{what} {_lack(bundles, trusted_keys)}")


def require_some(trusted_keys: Mapping[str, str]) -> None:
    """A KeyUnusable if no key is trusted: who asks for signatures must say whose."""
    if not trusted_keys:
        raise KeyUnusable("no key is trusted; give --trusted-key FILE or set ENGINERY_TRUSTED_KEYS")


def vouching(manifest: Manifest, bundles: Iterable[str], trusted_keys: Mapping[str, str]) -> tuple[str, ...]:
    """Ids of the keys that signed exactly the files of the manifest, its caches among them."""
    every = tuple(bundles)
    return tuple(key for key, pem in trusted_keys.items() if any(_is_of(one, manifest, pem) for one in every))


def _is_of(bundle: str, manifest: Manifest, public_key_pem: str) -> bool:
    statement = opened(bundle, public_key_pem)
    files = {name: record.sha256 for name, record in manifest.files.items()}
    return statement is not None and files in _listed(statement)


def _lack(bundles: Mapping[str, str], trusted_keys: Mapping[str, str]) -> str:
    trusted = ", ".join(key[:16] for key in trusted_keys)
    if not bundles:
        return f"is not signed; have it signed with `enginery trust sign` by a trusted key: {trusted}"
    false = [key[:16] for key in bundles if key in trusted_keys]
    if false:
        return f"has a signature by {', '.join(false)} that is of other files, or broken; do not use it"
    others = ", ".join(key[:16] for key in bundles)
    return f"is signed by {others}; have it signed by a trusted key: {trusted}"


def _statement(manifest: Manifest) -> dict[str, Any]:
    """Serialization as `model_signing` 1.1 reads it: resources in the order of their path's parts."""
    names = sorted(manifest.files, key=lambda name: PurePosixPath(name).parts)
    sums = [manifest.files[name].sha256 for name in names]
    total = hashlib.sha256(b"".join(bytes.fromhex(one) for one in sums)).hexdigest()
    own = {name.partition("/")[0] for name in names}
    return {
        "_type": STATEMENT,
        "subject": [{"name": manifest.key, "digest": {"sha256": total}}],
        "predicateType": SIGNATURE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [name for name in BESIDE if name not in own],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": one}
                for name, one in zip(names, sums, strict=True)
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
    """Digests that manifests of the files that a signed statement lists may have.

    Without caches, as manifests have them, and with, as those of 0.1 did.
    """
    return {one for files in _listed(statement) for one in (digest.of_tree(files), digests_of(files)[0])}


def _listed(statement: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Name -> sha256 of the files that a signed statement lists; none where it does not sign whole files.

    The second is without what `pull` writes: somebody may have signed a pulled directory with another tool.
    """
    try:
        resources = _Signed.model_validate(statement).predicate.resources
    except ValidationError:
        return ()
    listed = {one.name: one.digest for one in resources}
    if len(listed) != len(resources):
        return ()
    own = {name: one for name, one in listed.items() if name.partition("/")[0] not in BESIDE}
    return listed, own


def _id(public_pem: str) -> str:
    from artifacts.trust import envelope  # the signing library: 60 ms that only signers pay

    return envelope.key_id(public_pem)
