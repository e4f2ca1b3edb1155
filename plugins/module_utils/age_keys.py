"""Keys of age (X25519) that follow from a secret, so that whoever has the vault has them too. Pure."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def identity(secret: str) -> str:
    """The private key (AGE-SECRET-KEY-1...) that belongs to a secret."""
    return _bech32("age-secret-key-", _raw(secret)).upper()


def recipient(secret: str) -> str:
    """The public key (age1...) that belongs to a secret."""
    return _bech32("age", X25519PrivateKey.from_private_bytes(_raw(secret)).public_key().public_bytes_raw())


def _raw(secret: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"pi-commerce age key").derive(secret.encode())


def _bech32(prefix: str, data: bytes) -> str:
    """Bech32 (BIP 173), which has no limit of length in age."""
    number = int.from_bytes(data, "big") << (-len(data) * 8 % 5)
    count = -(-len(data) * 8 // 5)
    values = [number >> 5 * (count - 1 - index) & 31 for index in range(count)]
    expanded = [ord(char) >> 5 for char in prefix] + [0] + [ord(char) & 31 for char in prefix]
    check = _checksum([*expanded, *values, 0, 0, 0, 0, 0, 0]) ^ 1
    values += [check >> 5 * (5 - index) & 31 for index in range(6)]
    return f"{prefix}1" + "".join(_CHARACTERS[value] for value in values)


def _checksum(values: list[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for index, part in enumerate(_GENERATOR):
            state ^= part if top >> index & 1 else 0
    return state
