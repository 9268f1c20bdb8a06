"""Provenance of engines as in-toto statements with SLSA's provenance predicate, signed or not.

Fields: https://slsa.dev/spec/v1.0/provenance and https://github.com/in-toto/attestation, spec/v1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from artifacts.manifest import Manifest
from artifacts.trust.bundle import STATEMENT, PrivateKey, open_bundle, sign_statement
from artifacts.version import VersionRecord

PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:enginery:build:1"
"""Prefix of build types: `...:built` from a recipe, `...:imported` without a build."""

BUILDER = "urn:enginery:builder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """A signed provenance statement in the registry."""

    engine_key: str
    key_id: str
    bundle: str
    """Text of the bundle."""
    signed_at: datetime
    """UTC."""
    signed_by: str
    """`user@host`."""


def statement(record: VersionRecord, manifest: Manifest) -> dict[str, Any]:
    """The provenance of an engine; the statement of a version is the same on every machine."""
    # Only times of the manifest, never of now: the statement must be equal on every machine.
    started = manifest.created_at - timedelta(seconds=manifest.seconds)
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": file.sha256}} for name, file in sorted(manifest.files.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"{BUILD_TYPE}:{record.origin}",
                "externalParameters": {"name": record.name, "recipe": record.recipe},
                "internalParameters": {"step": manifest.step, "host": manifest.host},
                "resolvedDependencies": _dependencies(record, manifest),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": _versions(manifest.host)},
                "metadata": {
                    "invocationId": manifest.key,
                    "startedOn": _time(started),
                    "finishedOn": _time(manifest.created_at),
                },
            },
        },
    }


def attest(record: VersionRecord, manifest: Manifest, key: PrivateKey, *, by: str) -> Attestation:
    """The provenance statement, signed."""
    return Attestation(
        engine_key=manifest.key,
        key_id=key.id,
        bundle=sign_statement(statement(record, manifest), key),
        signed_at=datetime.now(UTC),
        signed_by=by,
    )


def verified_predicate(bundle: str, manifest: Manifest, public_key_pem: str) -> dict[str, Any] | None:
    """The predicate that the key signed for exactly these files; None if there is none."""
    statement_ = open_bundle(bundle, public_key_pem)
    if statement_ is None or statement_.get("predicateType") != PREDICATE:
        return None
    subject = [
        {"name": name, "digest": {"sha256": file.sha256}} for name, file in sorted(manifest.files.items())
    ]
    predicate = statement_.get("predicate")
    # Equal, not a subset: a statement about other files says nothing about these.
    return predicate if statement_.get("subject") == subject and isinstance(predicate, dict) else None


def _dependencies(record: VersionRecord, manifest: Manifest) -> list[dict[str, Any]]:
    """The source checkpoint by its URL, and every step's artifact by its key."""
    steps = [
        {"name": name, "uri": f"urn:enginery:artifact:{key}"}
        for name, key in record.lineage.items()
        if key != manifest.key  # the engine does not depend on itself
    ]
    repo, revision = record.source.get("repo"), record.source.get("revision")
    # A model from a local directory has no URL and no commit to state.
    if not (isinstance(repo, str) and isinstance(revision, str)):
        return steps
    model = {
        "name": "model",
        "uri": f"pkg:huggingface/{quote(repo)}@{quote(revision)}",
        "digest": {"gitCommit": revision},
    }
    return [model, *steps]


def _versions(host: Mapping[str, Any]) -> dict[str, str]:
    tools = host.get("tools", {})
    return {str(name): str(version) for name, version in tools.items()} if isinstance(tools, Mapping) else {}


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
