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
"""Curves that the OpenSSF Model Signing tools also accept."""


def new_key(passphrase: str) -> tuple[str, str]:
    """A private key on P-256, encrypted unless the passphrase is empty, and its public key; both PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode(),
        _pem(private.public_key()),
    )


def public_of(private_pem: bytes, passphrase: str) -> str:
    """The public key, PEM, of a private key; KeyUnusable for a wrong passphrase."""
    return _pem(_private(private_pem, passphrase).public_key())


def key_id(public_pem: str) -> str:
    """Id of a public key, also the hint in a sigstore bundle: sha256 of its PEM text."""
    return _id(_pem(_public(public_pem)))


def wrap(payload: bytes, payload_type: str, private_pem: bytes, passphrase: str) -> dict[str, object]:
    """The payload in an envelope that the key signed, as JSON values."""
    private = _private(private_pem, passphrase)
    id_ = _id(_pem(private.public_key()))
    public = SSlibKey.from_crypto(private.public_key(), keyid=id_)
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(CryptoSigner(private, public))
    values: dict[str, object] = envelope.to_dict()
    return values


def unwrap(payload: bytes, payload_type: str, signatures: list[bytes], public_pem: str) -> bool:
    """Whether the key made one of the signatures over the payload."""
    id_ = key_id(public_pem)
    public = SSlibKey.from_crypto(_public(public_pem), keyid=id_)
    for signature in signatures:
        # Other tools omit the key id, but the library compares ids first: use the id of the key at hand.
        envelope = Envelope(payload, payload_type, {id_: Signature(id_, signature.hex())})
        try:
            envelope.verify([public], 1)
        except (VerificationError, FormatError):
            continue
        return True
    return False


def _private(pem: bytes, passphrase: str) -> ec.EllipticCurvePrivateKey:
    try:
        # None, since the library takes an empty passphrase as one that was given.
        key = load_pem_private_key(pem, passphrase.encode() or None)
    except TypeError:  # the library's error for a missing or superfluous passphrase
        problem = (
            "is not encrypted; give no passphrase" if passphrase else "is encrypted; give its passphrase"
        )
        raise KeyUnusable(f"the private key {problem}") from None
    except ValueError:
        raise KeyUnusable("the private key cannot be read; give its own passphrase, and a PEM file") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, CURVES):
        raise KeyUnusable(
            "the private key is not on P-256, P-384 or P-521; make one with `enginery trust keygen`"
        )
    return key


def _public(pem: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError:
        raise KeyUnusable("the public key cannot be read; give a PEM file") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise KeyUnusable("the public key is not on P-256, P-384 or P-521; give an elliptic curve key")
    return key


def _pem(public: ec.EllipticCurvePublicKey) -> str:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _id(pem: str) -> str:
    return hashlib.sha256(pem.encode()).hexdigest()
