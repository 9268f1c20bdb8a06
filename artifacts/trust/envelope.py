"""Signed envelopes (DSSE) and the keys that sign them; the only module that loads the signing library.

securesystemslib signs and checks; the files of keys are PEM, as OpenSSL writes and reads them.
"""

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from securesystemslib.signer import (  # type: ignore[attr-defined]  # it does not list what it exports
    CryptoSigner,
    Signature,
    SSlibKey,
)

from artifacts.errors import KeyUnusable

CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""Curves that the OpenSSF Model Signing tools take too."""


def new_key(passphrase: str) -> tuple[str, str]:
    """A private key on P-256, encrypted unless the passphrase is empty, and its public key; both PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    how = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode(),
        _pem(private.public_key()),
    )


def public_of(private_pem: bytes, passphrase: str) -> str:
    """The public key, PEM, that belongs to a private one; a wrong passphrase is a KeyUnusable."""
    return _pem(_private(private_pem, passphrase).public_key())


def key_id(public_pem: str) -> str:
    """What a key is called, also as the hint in a sigstore bundle: sha256 of its PEM text."""
    return _id(_pem(_public(public_pem)))


def wrap(payload: bytes, payload_type: str, private_pem: bytes, passphrase: str) -> dict[str, object]:
    """The payload in an envelope that the key signed, as JSON values."""
    private = _private(private_pem, passphrase)
    named = _id(_pem(private.public_key()))
    public = SSlibKey.from_crypto(private.public_key(), keyid=named)
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(CryptoSigner(private, public))
    made: dict[str, object] = envelope.to_dict()
    return made


def unwrap(payload: bytes, payload_type: str, signatures: list[bytes], public_pem: str) -> bool:
    """Whether the key made one of the signatures over the payload."""
    named = key_id(public_pem)
    public = SSlibKey.from_crypto(_public(public_pem), keyid=named)
    for signed in signatures:
        # other tools leave the id of the key out, and the library compares ids first
        found = Envelope(payload, payload_type, {named: Signature(named, signed.hex())})
        try:
            found.verify([public], 1)
        except (VerificationError, FormatError):
            continue
        return True
    return False


def _private(pem: bytes, passphrase: str) -> ec.EllipticCurvePrivateKey:
    try:
        found = load_pem_private_key(pem, passphrase.encode() or None)
    except TypeError:  # how the library says that a passphrase is missing, or given and not needed
        what = "is not encrypted; give no passphrase" if passphrase else "is encrypted; give its passphrase"
        raise KeyUnusable(f"the private key {what}") from None
    except ValueError:
        raise KeyUnusable("the private key cannot be read; give its own passphrase, and a PEM file") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or not isinstance(found.curve, CURVES):
        raise KeyUnusable("the private key is of another kind; make one with `enginery trust keygen`")
    return found


def _public(pem: str) -> ec.EllipticCurvePublicKey:
    try:
        found = load_pem_public_key(pem.encode())
    except ValueError:
        raise KeyUnusable("the public key cannot be read; give a PEM file") from None
    if not isinstance(found, ec.EllipticCurvePublicKey) or not isinstance(found.curve, CURVES):
        raise KeyUnusable("the public key is of another kind; keys are elliptic: P-256, P-384 or P-521")
    return found


def _pem(public: ec.EllipticCurvePublicKey) -> str:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _id(pem: str) -> str:
    return hashlib.sha256(pem.encode()).hexdigest()
