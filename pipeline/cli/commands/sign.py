"""trust keygen, sign, attest: signatures over a version and its provenance."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import PATH, refuse_unused
from recipes.regular import is_directory, read_bytes, require_writable, user_path

if TYPE_CHECKING:
    from artifacts.manifest import Manifest
    from artifacts.registry.endorsement import Endorsements
    from artifacts.registry.registry import VersionRecord
    from artifacts.trust.bundle import PrivateKey

PASSPHRASE = "ENGINERY_KEY_PASSPHRASE"
TRUSTED = "ENGINERY_TRUSTED_KEYS"

SIGNATURE_BYTES = 64 << 20
"""A signature names every file of an engine; this is read of one at most."""

F = TypeVar("F", bound=Callable[..., Any])

REFERENCE = click.argument("reference", metavar="NAME[@ALIAS|:VERSION]|DIRECTORY")
KEY = click.option("--key", type=PATH, help="Private key file; its passphrase is prompted for.")
OUTPUT = click.option("--output", type=PATH, help="Also write the signature bundle to this file.")


def trust_options(command: F) -> F:
    """Adds `--trusted-key` and `--require-signed` to a command; `trusted` reads them."""
    paths = click.option(
        "--trusted-key",
        "trusted_key",
        multiple=True,
        type=PATH,
        help=f"Public key file or directory; one of them must have signed. Default: ${TRUSTED}.",
    )
    required = click.option(
        "--require-signed", is_flag=True, help="Fail if no trusted key is given or configured."
    )
    return paths(required(command))


def trusted(trusted_key: Iterable[Path], require_signed: bool) -> "Mapping[str, str] | None":
    """The trusted keys, of which one must have signed; None where no signature is required."""
    from artifacts.trust import bundle  # pydantic: not for --help

    configured = os.environ.get(TRUSTED, "")
    # options replace the variable, so that a call can trust fewer keys
    paths = [*trusted_key] or [user_path(part) for part in configured.split(os.pathsep) if part]
    if not paths and not require_signed:
        return None
    return bundle.trusted_keys(paths)


@click.command()
@click.argument("file", type=PATH)
@click.option("--no-passphrase", is_flag=True, help="Leave the private key unencrypted.")
@click.pass_obj
def keygen(app: App, file: Path, no_passphrase: bool) -> None:
    """Generate a key pair for signatures: the private key in FILE, the public key in FILE.pub.

    The passphrase is prompted for, or read from ENGINERY_KEY_PASSPHRASE. FILE.pub is enough to check
    signatures; keep FILE off build machines.

    Example: enginery trust keygen ~/keys/release
    """
    from artifacts.trust import bundle  # pydantic: not for --help

    secret = "" if no_passphrase else _passphrase(confirm=True)
    # an empty variable must not make an unencrypted key by accident
    if not secret and not no_passphrase:
        raise click.UsageError(f"the passphrase is empty; set {PASSPHRASE}, or give --no-passphrase")
    key_id = bundle.make_key(file, secret)
    public = f"{file}{bundle.PUBLIC_SUFFIX}"
    app.out.value(
        {"key_id": key_id, "private": str(file), "public": public, "encrypted": bool(secret)},
        text=f"key {key_id[:16]}: private {file}{'' if secret else ' (not encrypted)'}, public {public}",
        short=key_id,
    )


@click.command()
@REFERENCE
@KEY
@click.option("--add", type=PATH, help="Store a signature that was made elsewhere.")
@OUTPUT
@trust_options
@click.pass_obj
def sign(app: App, /, reference: str, **options: Any) -> None:
    """Sign the files of a version, store a signature made elsewhere, or list the signatures.

    A pulled directory is verified, signed, and the signature written to --output: that needs no registry.
    Any tool for OpenSSF model signatures can verify it.

    Example: enginery trust sign demo/int4_awq_tp2@candidate --key ~/keys/release
    """
    if is_directory(reference):
        refuse_unused("on a directory, which is signed", "add", "trusted_key", "require_signed")
        _sign_directory(app, Path(reference), options)
    elif options["add"] is not None:
        refuse_unused("with --add, which stores a signature and makes none", "key", "output")
        _store_signature(app, reference, options)
    elif options["key"] is not None:
        refuse_unused("with --key, which signs and checks no signature", "trusted_key", "require_signed")
        _sign_version(app, reference, options["key"], options["output"])
    else:
        refuse_unused("without --key", "output")
        _list_signatures(app, reference, trusted(options["trusted_key"], options["require_signed"]))


@click.command()
@REFERENCE
@KEY
@OUTPUT
@click.pass_obj
def attest(app: App, reference: str, key: Path | None, output: Path | None) -> None:
    """Sign the provenance of a version, as in-toto: recipe, inputs, tools and times.

    Without --key the statement is printed and not signed.

    Example: enginery trust attest demo/int4_awq_tp2@candidate --key ~/keys/release
    """
    from artifacts.actor import whoami
    from artifacts.trust import provenance  # pydantic: not for --help

    record, manifest = _resolve_engine(app, reference)
    if key is None:
        refuse_unused("without --key: the statement is printed and not signed", "output")
        statement = provenance.statement(record, manifest)
        app.out.value(statement, text=_json(statement), short=manifest.key)
        return
    attestation = provenance.attest(record, manifest, _read_private_key(key), by=whoami())
    _endorsements(app).add_attestation(attestation, manifest.digest)
    app.announce()
    _write(output, attestation.bundle)
    app.out.value(
        {"version": record.reference, "key_id": attestation.key_id, "engine_key": attestation.engine_key},
        text=f"{record.reference}: provenance signed by {attestation.key_id[:16]}",
        short=attestation.key_id,
    )


def _sign_version(app: App, reference: str, key: Path, output: Path | None) -> None:
    from artifacts.actor import whoami
    from artifacts.trust import signing  # pydantic: not for --help

    record, manifest = _resolve_engine(app, reference)
    signature = signing.sign(manifest, _read_private_key(key), by=whoami())
    _endorsements(app).add_signature(signature, record.engine_key)
    app.announce()
    _write(output, signature.bundle)
    app.out.value(
        {
            "version": record.reference,
            "key_id": signature.key_id,
            "manifest_digest": signature.manifest_digest,
        },
        text=f"{record.reference} is signed by {signature.key_id[:16]}: {len(manifest.files)} files, "
        f"digest {signature.manifest_digest[:16]}",
        short=signature.key_id,
    )


def _sign_directory(app: App, directory: Path, options: Mapping[str, Any]) -> None:
    from artifacts.actor import whoami
    from artifacts.manifest import MANIFEST, read_manifest
    from artifacts.pull.pulled import require_published, verify_pulled
    from artifacts.trust import signing  # pydantic: not for --help

    if options["key"] is None or options["output"] is None:
        raise click.UsageError("to sign a directory, give --key FILE and --output FILE")
    # what is signed is what was published, not what has become of it since
    require_published(str(directory), verify_pulled(directory))
    manifest = read_manifest((directory / MANIFEST).read_text(), str(directory / MANIFEST))
    signature = signing.sign(manifest, _read_private_key(options["key"]), by=whoami())
    _write(options["output"], signature.bundle)
    app.out.value(
        {
            "directory": str(directory),
            "key_id": signature.key_id,
            "manifest_digest": signature.manifest_digest,
        },
        text=f"{directory} is signed by {signature.key_id[:16]}; store it with: "
        f"enginery trust sign NAME:VERSION --add {options['output']} --trusted-key FILE.pub",
        short=signature.key_id,
    )


def _store_signature(app: App, reference: str, options: Mapping[str, Any]) -> None:
    from artifacts.actor import whoami
    from artifacts.errors import KeyUnusable
    from artifacts.trust import signing  # pydantic: not for --help

    # required here: who stores a signature must know whose it is
    keys = trusted(options["trusted_key"], True) or {}
    record, manifest = _resolve_engine(app, reference)
    text = read_bytes(options["add"], SIGNATURE_BYTES).decode(errors="replace")
    key_id = signing.vouching_keys(manifest, [text], keys)
    if not key_id:
        raise KeyUnusable(
            f"{options['add']}: not a signature of {record.reference} by a trusted key; give the version "
            "that was signed, and with --trusted-key the public half of the key"
        )
    signature = signing.accept_signature(text, manifest, keys[key_id[0]], by=whoami())
    _endorsements(app).add_signature(signature, record.engine_key)
    app.announce()
    app.out.value(
        {
            "version": record.reference,
            "key_id": signature.key_id,
            "manifest_digest": signature.manifest_digest,
        },
        text=f"{record.reference}: the signature by {signature.key_id[:16]} is stored",
        short=signature.key_id,
    )


def _list_signatures(app: App, reference: str, keys: "Mapping[str, str] | None") -> None:
    from artifacts.trust import provenance, signing  # pydantic: not for --help

    (record, manifest), endorsements = _resolve_engine(app, reference), _endorsements(app)
    if keys is not None:
        signing.require_keys(keys)
    pems = keys or {}
    every: list[tuple[str, Any, bool]] = [
        ("files", endorsement, bool(signing.vouching_keys(manifest, [endorsement.bundle], pems)))
        for endorsement in endorsements.signatures(manifest.digest)
    ]
    every += [
        (
            "provenance",
            endorsement,
            any(provenance.verified_predicate(endorsement.bundle, manifest, pem) for pem in pems.values()),
        )
        for endorsement in endorsements.attestations(manifest.key, manifest.digest)
    ]
    rows = [
        {
            "version": record.reference,
            "key_id": endorsement.key_id if app.out.json_mode else endorsement.key_id[:16],
            "what": subject,
            "signed_at": f"{endorsement.signed_at:%Y-%m-%d %H:%M}",
            "signed_by": endorsement.signed_by,
            "trusted": None if keys is None else trusted,
        }
        for subject, endorsement, trusted in every
    ]
    app.out.rows(rows, id_column="key_id")
    if not rows:
        app.out.say(
            f"{record.reference} has no signatures; "
            f"sign it: enginery trust sign {record.reference} --key FILE"
        )


def _resolve_engine(app: App, reference: str) -> "tuple[VersionRecord, Manifest]":
    """The version and the manifest of its engine, which must be the one that was published."""
    record = app.client.resolve(reference)
    return record, app.client.manifest(record)


def _endorsements(app: App) -> "Endorsements":
    from artifacts.registry.endorsement import Endorsements  # SQLAlchemy: not for --help

    return Endorsements(app.registry.database)


def _read_private_key(path: Path) -> "PrivateKey":
    """The key in the file, with the passphrase that it asks for."""
    from artifacts.trust import bundle  # pydantic: not for --help

    return bundle.read_private_key(path, _passphrase() if bundle.is_encrypted(path) else "")


def _passphrase(*, confirm: bool = False) -> str:
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE]
    if not sys.stdin.isatty():
        raise click.UsageError(f"the key has a passphrase, and stdin is not a terminal; set {PASSPHRASE}")
    # on stderr, so that stdout can be piped
    answer: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def _write(output: Path | None, bundle: str) -> None:
    if output is not None:
        from artifacts.store.disk import ReportUnwritable  # pydantic: not for --help

        require_writable(output)
        with ReportUnwritable(output.parent):
            output.write_text(bundle)


def _json(value: Mapping[str, Any]) -> str:
    import json  # printing a statement is rare

    return json.dumps(value, indent=2)
