"""What every provider's module works with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ..errors import Refused, forged

# What comes from outside and is used as a key: short, and nothing that a log or a header could be broken with.
_WORD = re.compile(r"[\x21-\x7e]{1,200}")
_TOPIC = re.compile(r"[A-Za-z0-9_./:-]{1,100}")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came in: header names in lower case, the body untouched; ``now`` is when, in Unix seconds."""

    headers: Mapping[str, str]
    body: bytes
    now: float

    def header(self, name: str) -> str:
        """The header ``name``. Raises Refused where it is missing or empty."""
        value = self.headers.get(name, "")
        if not value:
            raise forged(f"header {name} is missing")
        return value


@dataclass(frozen=True, slots=True)
class Event:
    """What happened.

    ``id`` is the provider's, ``order`` what has to stay in sequence ("" for nothing). ``id_signed`` says whether
    the signature covers the id; where it does not, the same body with another id is still the same event.
    """

    id: str
    topic: str
    order: str = ""
    occurred_at: datetime | None = None
    id_signed: bool = True


class Options(Protocol):
    """What a provider's module may know of its endpoint (config.Endpoint)."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret, and while it is being changed the one before it."""

    @property
    def tolerance_seconds(self) -> int:
        """How far a signed time may be from ours."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What only this provider has."""


class Provider(Protocol):
    """A module of this package."""

    # Headers that decide something: given twice, nobody could say which one counts.
    HEADERS: tuple[str, ...]
    # Defaults of the options that only this provider has; a value's type is the one that is accepted.
    OPTIONS: Mapping[str, Any]

    async def verify(self, request: Request, endpoint: Options) -> None:
        """Return if the request is the provider's own. Raises Refused."""

    def read(self, request: Request, document: dict[str, Any]) -> Event:
        """What happened, of a request that was verified. Raises Refused."""


def sign(secret: bytes, message: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.digest(secret, message, hashlib.sha256)


def any_equal(expected: Iterable[bytes], given: Iterable[bytes]) -> bool:
    """Whether one of ``given`` is one of ``expected``; how long it takes does not tell how much of one is right."""
    candidates = list(given)
    return any(hmac.compare_digest(one, other) for one in expected for other in candidates)


def from_base64(text: str) -> bytes:
    """The bytes, or none where ``text`` is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def from_hex(text: str) -> bytes:
    """The bytes, or none where ``text`` is not hexadecimal."""
    # bytes.fromhex() takes spaces too.
    return bytes.fromhex(text) if re.fullmatch(r"([0-9a-fA-F]{2})+", text) else b""


def check_time(seconds: str, now: float, tolerance: int) -> None:
    """Refuse a signed Unix time that is too far from now."""
    if not re.fullmatch(r"[0-9]{1,12}", seconds):
        raise forged("the signed time is no Unix time")
    if abs(now - int(seconds)) > tolerance:
        raise forged(f"the signed time is more than {tolerance} s from now; is the clock right?")


def word(value: object, what: str) -> str:
    """A short text or number that may be used as a key. Raises Refused, naming ``what`` it should have been."""
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    if not _WORD.fullmatch(text):
        raise Refused(422, "fields", f"{what} is missing or not 1 to 200 printable characters without spaces")
    return text


def topic(value: object, what: str) -> str:
    """The name of a kind of event. Raises Refused."""
    if not isinstance(value, str) or not _TOPIC.fullmatch(value):
        raise Refused(422, "fields", f"{what} is missing or no name of an event")
    return value


def key(*candidates: object) -> str:
    """The first of ``candidates`` that can be a key, else ""."""
    for value in candidates:
        text = str(value) if isinstance(value, str) or type(value) is int else ""
        if _WORD.fullmatch(text):
            return text
    return ""


def inside(document: object, *path: str | int) -> Any:
    """The value at ``path``, None where there is nothing."""
    value: Any = document
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and len(value) > step:
            value = value[step]
        else:
            return None
    return value


def moment(value: object) -> datetime | None:
    """A time as providers write it, ISO 8601 with a zone or Unix seconds; None for anything else."""
    try:
        if type(value) is int and 0 < value < 10_000_000_000:
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            read = datetime.fromisoformat(value)
            return read if read.tzinfo and 2000 <= read.year < 2100 else None
    except (ValueError, OverflowError, OSError):
        pass
    return None
