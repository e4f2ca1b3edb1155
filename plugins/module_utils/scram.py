"""SCRAM-SHA-256 password verifiers in the form PostgreSQL stores them (RFC 5803).

With a verifier made here the server never sees the plain password, so it can reach no server log.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re

_ITERATIONS = 4096  # PostgreSQL's own default (scram_iterations)
_SALT_BYTES = 16
_STORED = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+")


def refuse_unusable(password: str) -> None:
    """Raise ValueError for an empty password and for characters outside printable ASCII.

    Clients normalise those differently (SASLprep), so one could log in where another could not.
    """
    if not password or not (password.isascii() and password.isprintable()):
        raise ValueError("must be printable ASCII and not empty")


def make_verifier(password: str, salt: bytes | None = None, iterations: int = _ITERATIONS) -> str:
    """Return the verifier of `password`, with a random salt unless one is given. Raises ValueError."""
    refuse_unusable(password)
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"


def matches(password: str, stored: str | None) -> bool:
    """Say whether `stored` (pg_authid.rolpassword) belongs to `password`; another scheme never does."""
    parts = _STORED.fullmatch(stored or "")
    if parts is None:
        return False
    expected = make_verifier(password, base64.b64decode(parts[2]), int(parts[1]))
    return hmac.compare_digest(expected, parts[0])
