"""Signed in-toto statements as sigstore bundles, the format of cosign and OpenSSF Model Signing."""

import base64
import binascii
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from artifacts.errors import KeyUnusable
from artifacts.store.disk import ReportUnwritable
from recipes.regular import FileRefused, is_directory, read_bytes

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"

PUBLIC_SUFFIX = ".pub"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key; it is parsed only where it signs."""

    pem: bytes = field(repr=False)
    passphrase: str = field(default="", repr=False)

    @property
    def id(self) -> str:
        """Id of the key: sha256 of its public key, PEM."""
        from artifacts.trust import envelope  # the signing library: 60 ms that only signers pay

        return envelope.key_id(envelope.public_of(self.pem, self.passphrase))


def make_key(path: Path, passphrase: str) -> str:
    """Write a new private key to `path`, for its owner only, and the public key beside it; return its id.

    KeyUnusable for an existing file, which stays.
    """
    from artifacts.trust import envelope  # as above

    if not path.name:
        raise KeyUnusable(f"{path} is a directory; give the name of a file in it")
    private, public = envelope.new_key(passphrase)
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    for existing in (path, public_path):
        if existing.is_symlink() or existing.exists():
            raise KeyUnusable(f"{existing} exists; a key is never replaced: choose another name")
    with ReportUnwritable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        for place, text, mode in ((path, private, 0o600), (public_path, public, 0o644)):
            try:
                with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
                    # O_EXCL with the mode: at no moment can others read the key, and no existing one is
                    # replaced.
                    file.write(text)
            except OSError:  # e.g. a full disk: half a key would block the next attempt
                path.unlink(missing_ok=True)
                public_path.unlink(missing_ok=True)
                raise
    return envelope.key_id(public)


def read_private_key(path: Path, passphrase: str = "") -> PrivateKey:
    """The private key in a file that is not readable by everybody; otherwise a KeyUnusable."""
    try:
        key = PrivateKey(read_bytes(path), passphrase)
        # The group may read it, e.g. on a shared build server.
        others = path.stat().st_mode & 0o007
    except FileRefused as exc:
        raise KeyUnusable(f"the key cannot be read: {exc}; give its file") from None
    if others:
        raise KeyUnusable(f"{path}: everybody may read this private key; chmod 600 it, or make a new one")
    try:
        _ = key.id
    except KeyUnusable as exc:
        raise KeyUnusable(f"{path}: {exc}") from None
    return key


def is_encrypted(path: Path) -> bool:
    """Whether the private key in a file needs a passphrase; False for an unreadable file."""
    try:
        return b"ENCRYPTED" in read_bytes(path)
    except FileRefused:  # reported where the key is used
        return False


def trusted_keys(paths: Iterable[Path]) -> dict[str, str]:
    """Id -> public key, PEM, of every key in the files; for a directory, in its `*.pub` files.

    A file may hold several keys, with text between them. KeyUnusable for one without a key.
    """
    from artifacts.trust import envelope  # as above

    keys: dict[str, str] = {}
    for path in paths:
        files = sorted(path.glob(f"*{PUBLIC_SUFFIX}")) if is_directory(path) else [path]
        pems = [pem for file in files for pem in _pems(file)]
        if not pems:
            raise KeyUnusable(
                f"{path}: has no public key; give PEM files such as `enginery trust keygen` writes"
            )
        for pem in pems:
            try:
                keys[envelope.key_id(pem)] = pem
            except KeyUnusable as exc:
                raise KeyUnusable(f"{path}: {exc}") from None
    return keys


def sign_statement(statement: Mapping[str, Any], key: PrivateKey) -> str:
    """The statement signed by the key, as the text of a bundle."""
    from artifacts.trust import envelope  # as above

    # The signature covers these bytes, which the bundle carries; no reader has to write the same JSON.
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    envelope_ = envelope.wrap(payload, PAYLOAD, key.pem, key.passphrase)
    material = {"publicKey": {"hint": key.id}, "tlogEntries": []}
    return json.dumps({"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope_})


def open_bundle(bundle: str, public_pem: str) -> dict[str, Any] | None:
    """The statement in a bundle that the key signed; None for any other text."""
    from artifacts.trust import envelope  # as above

    parsed = _read(bundle)
    if parsed is None or not envelope.unwrap(
        parsed.payload, PAYLOAD, [signature.sig for signature in parsed.signatures], public_pem
    ):
        return None
    return _statement(parsed.payload)


def is_bundle(text: str) -> bool:
    """Whether text has the form of a bundle; verifies nothing."""
    return _read(text) is not None


def read_claims(bundle: str) -> tuple[str, dict[str, Any]]:
    """Key id and statement that a bundle claims, unverified; KeyUnusable for text that is not a bundle."""
    parsed = _read(bundle)
    statement = None if parsed is None else _statement(parsed.payload)
    hint = None if parsed is None else parsed.hint
    if statement is None or hint is None:
        raise KeyUnusable(
            "not a signature bundle; give one that `enginery trust sign` or model_signing wrote"
        )
    return hint, statement


def _pems(file: Path) -> list[str]:
    begin, end = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
    try:
        text = read_bytes(file).decode(errors="replace")
    except FileRefused as exc:
        raise KeyUnusable(f"the key cannot be read: {exc}; give a PEM file") from None
    return [f"{begin}{part.partition(end)[0]}{end}\n" for part in text.split(begin)[1:]]


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("no base64 text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("no base64 text") from None


Bytes = Annotated[bytes, BeforeValidator(_decoded)]


class _Signed(BaseModel):
    sig: Bytes


class _Envelope(BaseModel):
    payload: Bytes
    payload_type: Literal["application/vnd.in-toto+json"] = Field(alias="payloadType")
    signatures: list[_Signed] = Field(min_length=1, max_length=16)


class _PublicKey(BaseModel):
    hint: str = Field(max_length=200)


class _Material(BaseModel):
    public_key: _PublicKey | None = Field(None, alias="publicKey")


class _Bundle(BaseModel):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = Field(alias="mediaType")
    material: _Material = Field(alias="verificationMaterial")
    envelope: _Envelope = Field(alias="dsseEnvelope")

    @property
    def payload(self) -> bytes:
        return self.envelope.payload

    @property
    def signatures(self) -> list[_Signed]:
        return self.envelope.signatures

    @property
    def hint(self) -> str | None:
        return self.material.public_key.hint if self.material.public_key else None


def _read(text: str) -> _Bundle | None:
    try:
        return _Bundle.model_validate_json(text)
    except ValidationError:
        return None


class _Statement(BaseModel, extra="allow"):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")


def _statement(payload: bytes) -> dict[str, Any] | None:
    try:
        return _Statement.model_validate_json(payload).model_dump(by_alias=True)
    except ValidationError:
        return None
