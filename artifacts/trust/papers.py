"""The files beside a pulled engine: signatures, provenance and licence texts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from artifacts import digest
from artifacts.errors import KeyUnusable
from artifacts.manifest import MANIFEST, VERSION, Manifest, read_manifest
from artifacts.store import tree
from artifacts.trust.bundle import is_bundle
from artifacts.trust.licence import texts_of
from artifacts.trust.provenance import Attestation, statement
from artifacts.trust.signing import (
    BESIDE,
    LICENCES,
    PROVENANCE,
    SIGNATURES,
    Signature,
    require_vouched,
    states,
)
from artifacts.version import VersionRecord

RECORDED: Final = "beside"
"""Field of `version.json`: name -> sha256 of each file that `accompany` wrote."""


class LaterFields(TypedDict, total=False):
    """Fields of `version.json` that 0.1 did not write."""

    caches: str
    beside: dict[str, str]


class PulledVersion(LaterFields):
    """Contents of `version.json` in a pulled directory."""

    name: str
    number: int
    key: str
    manifest_digest: str
    published_at: str
    facts: dict[str, Any]


def accompany(
    directory: Path,
    record: VersionRecord,
    manifest: Manifest,
    signatures: Sequence[Signature],
    attestations: Sequence[Attestation] = (),
) -> dict[str, str]:
    """Write signatures, provenance and licences into a version's directory; return name -> sha256.

    Names that the artifact itself has are skipped. The result belongs into `version.json`, under `beside`.
    """
    written: dict[str, str] = {
        SIGNATURES: _json(
            {
                "signatures": {
                    endorsement.key_id: json.loads(endorsement.bundle)
                    for endorsement in signatures
                    if is_bundle(endorsement.bundle)
                },
                "attestations": {
                    endorsement.key_id: json.loads(endorsement.bundle)
                    for endorsement in attestations
                    if is_bundle(endorsement.bundle)
                },
            }
        ),
        PROVENANCE: _json(statement(record, manifest)),
    }
    # Compared by top name: a file of the artifact named like the folder would make mkdir fail.
    top_names = {name.partition("/")[0] for name in manifest.files}
    written |= {f"{LICENCES}/{name}": text for name, text in texts_of(record.source).items()}
    sums = {}
    for name, text in written.items():
        # The artifact's own file counts: it is in the manifest.
        if name.partition("/")[0] in top_names:
            continue
        target, content = directory / name, text.encode()
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
    return sums


def extra_names(version: PulledVersion) -> tuple[str, ...]:
    """Names in a pulled directory that are not files of the artifact: `version.json` and its records."""
    return (MANIFEST, VERSION, *_recorded(version))


def problems(directory: Path, manifest: Manifest, version: PulledVersion) -> list[str]:
    """Every problem of the files beside a pulled engine; reads all of them.

    A signature must be of the engine's files; `require_trusted` checks its key.
    """
    problems_ = []
    for name, expected in _recorded(version).items():
        # `version.json` is sealed, not signed: its names may lead anywhere.
        if not _is_paper(name):
            problems_.append(f"{VERSION}: records {name!r}, a name that pull never writes")
        # A link could show bytes from outside of the directory.
        elif not (directory / name).is_file() or not tree.is_plain(directory / name):
            problems_.append(f"{name}: missing")
        elif (sha256 := digest.of_file(directory / name)) != expected:
            problems_.append(f"{name}: sha256 {sha256}; {VERSION} says {expected}")
    if problems_ or SIGNATURES not in _recorded(version):
        return problems_
    return [
        f"{SIGNATURES}: the signature by {key[:16]} is of other files"
        for key, bundle in signatures_in(directory).items()
        if not states(bundle, manifest.digest)
    ]


def require_trusted(directory: Path, trusted_keys: Mapping[str, str]) -> tuple[str, ...]:
    """Ids of the trusted keys that signed a verified pulled directory; NotTrusted if none did."""
    manifest = read_manifest((directory / MANIFEST).read_bytes().decode(errors="replace"), MANIFEST)
    return require_vouched(str(directory), manifest, signatures_in(directory), trusted_keys)


def signatures_in(directory: Path) -> dict[str, str]:
    """Key id -> bundle of every signature in a pulled directory, unverified."""
    if not (directory / SIGNATURES).is_file():
        return {}
    try:
        bundles = json.loads((directory / SIGNATURES).read_bytes())["signatures"]
        return {str(key): json.dumps(bundle) for key, bundle in bundles.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KeyUnusable(f"{directory / SIGNATURES}: has no signatures; pull the version again") from None


def _recorded(version: PulledVersion) -> dict[str, str]:
    recorded = version.get(RECORDED, {})
    return (
        {str(name): str(sha256) for name, sha256 in recorded.items()} if isinstance(recorded, Mapping) else {}
    )


def _is_paper(name: str) -> bool:
    """Whether `pull` writes files with that name; such a name cannot lead out of the directory."""
    folder, _, licence = name.rpartition("/")
    if folder:
        return folder == LICENCES and licence not in ("", ".", "..")
    return name in BESIDE and name not in (MANIFEST, VERSION, LICENCES)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
