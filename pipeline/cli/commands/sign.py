"""keygen, sign, attest: who vouches for a version."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.app import App
from pipeline.cli.parameter_types import PATH
from pipeline.cli.unused_options import refuse_unused
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
KEY = click.option("--key", type=PATH, help="Private key file; its passphrase is asked for.")
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
        "--require-signed", is_flag=True, help="Fail if no trusted key is named anywhere."
    )
    return paths(required(command))


def trusted(trusted_key: Iterable[Path], require_signed: bool) -> "Mapping[str, str] | None":
    """The keys that are trusted here, of which one must have signed; None where nobody asked for that."""
    from artifacts.trust import bundle  # pydantic: not for --help

    named = os.environ.get(TRUSTED, "")
    paths = [*trusted_key] or [user_path(part) for part in named.split(os.pathsep) if part]
    if not paths and not require_signed:
        return None
    return bundle.trusted_keys(paths)


@click.command()
@click.argument("file", type=PATH)
@click.option("--no-passphrase", is_flag=True, help="Leave the private key unencrypted.")
@click.pass_obj
def keygen(app: App, file: Path, no_passphrase: bool) -> None:
    """Make a key to sign with: FILE keeps the private half, FILE.pub the public one.

    The passphrase is asked for, or taken from ENGINERY_KEY_PASSPHRASE. Whoever has FILE.pub can check
    signatures; keep FILE where nothing is built.

    Example: enginery keygen ~/keys/release
    """
    from artifacts.trust import bundle  # pydantic: not for --help

    secret = "" if no_passphrase else _passphrase(confirm=True)
    if not secret and not no_passphrase:
        raise click.UsageError(f"the passphrase is empty; set {PASSPHRASE}, or say --no-passphrase")
    made = bundle.make_key(file, secret)
    public = f"{file}{bundle.PUBLIC_SUFFIX}"
    app.out.value(
        {"key_id": made, "private": str(file), "public": public, "encrypted": bool(secret)},
        text=f"key {made[:16]}: private {file}{'' if secret else ' (not encrypted)'}, public {public}",
        short=made,
    )


@click.command()
@REFERENCE
@KEY
@click.option("--add", type=PATH, help="Keep a signature that was made elsewhere.")
@OUTPUT
@trust_options
@click.pass_obj
def sign(app: App, /, reference: str, **asked: Any) -> None:
    """Sign the files of a version, keep a signature made elsewhere, or list the signatures there are.

    A pulled directory is verified, signed, and the signature written to --output: that needs no registry.
    Any tool for OpenSSF model signatures can check it.

    Example: enginery sign demo/int4_awq_tp2@candidate --key ~/keys/release
    """
    if is_directory(reference):
        refuse_unused("on a directory, which is signed", "add", "trusted_key", "require_signed")
        _sign_directory(app, Path(reference), asked)
    elif asked["add"] is not None:
        refuse_unused("with --add, which keeps a signature and makes none", "key", "output")
        _add(app, reference, asked)
    elif asked["key"] is not None:
        refuse_unused("with --key, which signs and checks no signature", "trusted_key", "require_signed")
        _sign_version(app, reference, asked["key"], asked["output"])
    else:
        refuse_unused("without --key", "output")
        _list(app, reference, trusted(asked["trusted_key"], asked["require_signed"]))


@click.command()
@REFERENCE
@KEY
@OUTPUT
@click.pass_obj
def attest(app: App, reference: str, key: Path | None, output: Path | None) -> None:
    """Sign how a version came to be: recipe, inputs, tools and times, as in-toto provenance.

    Without --key the statement is printed and not signed.

    Example: enginery attest demo/int4_awq_tp2@candidate --key ~/keys/release
    """
    from artifacts.actor import whoami
    from artifacts.trust import provenance  # pydantic: not for --help

    record, manifest = _version(app, reference)
    if key is None:
        refuse_unused("without --key: the statement is printed and not signed", "output")
        said = provenance.statement(record, manifest)
        app.out.value(said, text=_json(said), short=manifest.key)
        return
    made = provenance.attest(record, manifest, _private(key), by=whoami())
    _endorsements(app).add_attestation(made, manifest.digest)
    app.announce()
    _write(output, made.bundle)
    app.out.value(
        {"version": record.reference, "key_id": made.key_id, "engine_key": made.engine_key},
        text=f"{record.reference}: how it was built is signed by {made.key_id[:16]}",
        short=made.key_id,
    )


def _sign_version(app: App, reference: str, key: Path, output: Path | None) -> None:
    from artifacts.actor import whoami
    from artifacts.trust import signing  # pydantic: not for --help

    record, manifest = _version(app, reference)
    made = signing.sign(manifest, _private(key), by=whoami())
    _endorsements(app).add_signature(made, record.engine_key)
    app.announce()
    _write(output, made.bundle)
    app.out.value(
        {"version": record.reference, "key_id": made.key_id, "manifest_digest": made.manifest_digest},
        text=f"{record.reference} is signed by {made.key_id[:16]}: {len(manifest.files)} files, "
        f"digest {made.manifest_digest[:16]}",
        short=made.key_id,
    )


def _sign_directory(app: App, directory: Path, asked: Mapping[str, Any]) -> None:
    from artifacts.actor import whoami
    from artifacts.manifest import MANIFEST, read_manifest
    from artifacts.pull.pulled import require_published, verify_pulled
    from artifacts.trust import signing  # pydantic: not for --help

    if asked["key"] is None or asked["output"] is None:
        raise click.UsageError("to sign a directory, give --key FILE and --output FILE")
    require_published(str(directory), verify_pulled(directory))
    manifest = read_manifest((directory / MANIFEST).read_text(), str(directory / MANIFEST))
    made = signing.sign(manifest, _private(asked["key"]), by=whoami())
    _write(asked["output"], made.bundle)
    app.out.value(
        {"directory": str(directory), "key_id": made.key_id, "manifest_digest": made.manifest_digest},
        text=f"{directory} is signed by {made.key_id[:16]}; keep it with: enginery sign NAME:VERSION "
        f"--add {asked['output']} --trusted-key FILE.pub",
        short=made.key_id,
    )


def _add(app: App, reference: str, asked: Mapping[str, Any]) -> None:
    from artifacts.actor import whoami
    from artifacts.errors import KeyUnusable
    from artifacts.trust import signing  # pydantic: not for --help

    keys = trusted(asked["trusted_key"], True) or {}
    record, manifest = _version(app, reference)
    text = read_bytes(asked["add"], SIGNATURE_BYTES).decode(errors="replace")
    key_id = signing.vouching_keys(manifest, [text], keys)
    if not key_id:
        raise KeyUnusable(
            f"{asked['add']}: not a signature of {record.reference} by a trusted key; give the version that "
            "was signed, and with --trusted-key the public half of the key"
        )
    made = signing.accept_signature(text, manifest, keys[key_id[0]], by=whoami())
    _endorsements(app).add_signature(made, record.engine_key)
    app.announce()
    app.out.value(
        {"version": record.reference, "key_id": made.key_id, "manifest_digest": made.manifest_digest},
        text=f"{record.reference}: the signature by {made.key_id[:16]} is kept",
        short=made.key_id,
    )


def _list(app: App, reference: str, keys: "Mapping[str, str] | None") -> None:
    from artifacts.trust import provenance, signing  # pydantic: not for --help

    (record, manifest), kept = _version(app, reference), _endorsements(app)
    if keys is not None:
        signing.require_keys(keys)
    known = keys or {}
    every: list[tuple[str, Any, bool]] = [
        ("files", one, bool(signing.vouching_keys(manifest, [one.bundle], known)))
        for one in kept.signatures(manifest.digest)
    ]
    every += [
        (
            "provenance",
            one,
            any(provenance.verified_predicate(one.bundle, manifest, pem) for pem in known.values()),
        )
        for one in kept.attestations(manifest.key, manifest.digest)
    ]
    rows = [
        {
            "version": record.reference,
            "key_id": one.key_id if app.out.json_mode else one.key_id[:16],
            "what": what,
            "signed_at": f"{one.signed_at:%Y-%m-%d %H:%M}",
            "signed_by": one.signed_by,
            "trusted": None if keys is None else trusted,
        }
        for what, one, trusted in every
    ]
    app.out.rows(rows, id_column="key_id")
    if not rows:
        app.out.say(f"nobody signed {record.reference}; enginery sign {record.reference} --key FILE does")


def _version(app: App, reference: str) -> "tuple[VersionRecord, Manifest]":
    """The version and the manifest of its engine, which must be the one that was published."""
    record = app.client.resolve(reference)
    return record, app.client.manifest(record)


def _endorsements(app: App) -> "Endorsements":
    from artifacts.registry.endorsement import Endorsements  # SQLAlchemy: not for --help

    return Endorsements(app.registry.database)


def _private(path: Path) -> "PrivateKey":
    """The key in the file, with the passphrase that it asks for."""
    from artifacts.trust import bundle  # pydantic: not for --help

    return bundle.read_private_key(path, _passphrase() if bundle.is_encrypted(path) else "")


def _passphrase(*, confirm: bool = False) -> str:
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE]
    if not sys.stdin.isatty():
        raise click.UsageError(f"the key has a passphrase and nobody can be asked; set {PASSPHRASE}")
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
