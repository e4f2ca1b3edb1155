"""Jinja filters that derive texts from secrets, the same text from the same secret every time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any

from passlib.hash import bcrypt
from passlib.utils.binary import bcrypt64


def bcrypt_hash(password: str, key: str, rounds: int = 10) -> str:
    """The password's bcrypt hash (`$2b$`), with a salt that follows from `key` and the password.

    A random salt would change the file, and with it the container, in every run.
    """
    raw = hmac.digest(str(key).encode(), str(password).encode(), "sha256")[:16]
    salt = bcrypt64.encode_bytes(raw).decode()
    return str(bcrypt.using(salt=salt, ident="2b", rounds=rounds, relaxed=True).hash(str(password)))


def digest(values: Iterable[str], key: str) -> str:
    """32 hexadecimal digits that change with any of the values and tell nothing about them without `key`."""
    mac = hmac.new(str(key).encode(), digestmod="sha256")
    for value in values:
        mac.update(hashlib.sha256(str(value).encode()).digest())
    return mac.hexdigest()[:32]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {"bcrypt_hash": bcrypt_hash, "digest": digest}
