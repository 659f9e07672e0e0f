from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from medloop_model.federation.errors import WrongSignature
from medloop_model.federation.signature import create_key, load_key, public_half, sign, verify

# RFC 8032, section 7.1, test 2.
SECRET = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_it_is_the_standards_signature() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SECRET))
    assert public_half(key) == PUBLIC
    assert sign(b"\x72", key) == SIGNATURE
    verify(b"\x72", SIGNATURE, "clinic", PUBLIC)


@pytest.mark.parametrize(
    ("content", "signature", "public"),
    [
        (b"\x73", SIGNATURE, PUBLIC),
        (b"\x72", "00" * 64, PUBLIC),
        (b"\x72", "none", PUBLIC),
        (b"\x72", SIGNATURE, PUBLIC[::-1]),
        (b"\x72", SIGNATURE, "short"),
    ],
)
def test_any_other_is_refused(content: bytes, signature: str, public: str) -> None:
    with pytest.raises(WrongSignature, match="clinic"):
        verify(content, signature, "clinic", public)


def test_a_key_is_kept_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.pem"
    public = create_key(path)
    assert path.stat().st_mode & 0o077 == 0
    assert public_half(load_key(path)) == public
    with pytest.raises(FileExistsError):
        create_key(path)
    path.write_text("no key")
    with pytest.raises(ValueError, match="holds no Ed25519 key"):
        load_key(path)


def test_a_key_behind_a_password_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "site.pem"
    locked = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    path.write_bytes(locked)
    with pytest.raises(ValueError, match=r"site\.pem holds no Ed25519 key.*medloop site-key"):
        load_key(path)
