"""Who an update is from: an Ed25519 signature (RFC 8032) by the site's private key."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from medloop_model.federation.errors import WrongSignature


def create_key(path: Path) -> str:
    """Write a new private key (PEM, PKCS #8, readable by its owner alone); returns the public half in hex.

    Raises:
        FileExistsError: there is a file already; a key is never overwritten.
    """
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return public_half(key)


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        ValueError: the file is no Ed25519 key in PEM, or it is encrypted.
        OSError: it can't be read.
    """
    wrong = f"{path} holds no Ed25519 key, or a password is on it; make one with `medloop site-key`"
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(wrong) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(wrong)  # noqa: TRY004
    return key


def public_half(key: Ed25519PrivateKey) -> str:
    """What others know a key by: 64 hexadecimal digits."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def sign(content: bytes, key: Ed25519PrivateKey) -> str:
    """The signature, 128 hexadecimal digits; the same content and key give the same."""
    return key.sign(content).hex()


def verify(content: bytes, signature: str, site_id: str, public_key: str) -> None:
    """Check that a site has signed this content.

    Args:
        content: what was signed.
        signature: 128 hexadecimal digits.
        site_id: whose key it is.
        public_key: 64 hexadecimal digits.

    Raises:
        WrongSignature: it hasn't.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError) as error:
        raise WrongSignature(site_id) from error
