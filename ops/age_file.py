"""Writes what `age --decrypt` opens with a passphrase (age-encryption.org/v1). Pure.

The program itself takes a passphrase from a terminal only, and would have to be installed; nothing has to be here.
"""

from __future__ import annotations

import base64
import hmac
import os

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

# 256 MiB of memory and about a second for each guess; what the program itself takes.
WORK = 18
CHUNK = 64 * 1024


def seal(content: bytes, passphrase: str, work: int = WORK) -> bytes:
    """The content, encrypted; `work` is the binary logarithm of what a guess costs."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrap = Scrypt(salt=b"age-encryption.org/v1/scrypt" + salt, length=32, n=1 << work, r=8, p=1)
    wrapped = ChaCha20Poly1305(wrap.derive(passphrase.encode())).encrypt(bytes(12), file_key, None)
    header = f"age-encryption.org/v1\n-> scrypt {_text(salt)} {work}\n{_text(wrapped)}\n---".encode()
    mac = hmac.digest(_derived(file_key, b"", b"header"), header, "sha256")
    stream = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
    starts = range(0, max(len(content), 1), CHUNK)
    sealed = [
        # A counter, and a last byte that says whether more follows.
        stream.encrypt(count.to_bytes(11, "big") + bytes([start == starts[-1]]), content[start : start + CHUNK], None)
        for count, start in enumerate(starts)
    ]
    return b"".join([header, b" ", _text(mac).encode(), b"\n", nonce, *sealed])


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")
