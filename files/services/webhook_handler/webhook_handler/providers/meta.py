"""Meta (Facebook, Instagram, WhatsApp): HMAC of the raw body with the app's secret, and a handshake by GET."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ..errors import Refused, forged
from .base import Event, Options, Request, any_equal, from_hex, inside, key, moment, sign, topic

HEADERS = ("x-hub-signature-256",)
OPTIONS: dict[str, Any] = {}


async def verify(request: Request, endpoint: Options) -> None:
    """The older header with SHA-1 does not count."""
    scheme, _, text = request.header("x-hub-signature-256").partition("=")
    given = from_hex(text) if scheme == "sha256" else b""
    if not any_equal((sign(secret.encode(), request.body) for secret in endpoint.secrets), [given]):
        raise forged("x-hub-signature-256 does not fit the body")


def handshake(query: Mapping[str, str], token: str) -> bytes:
    """What to answer when Meta asks whether this endpoint is ours. Raises Refused."""
    challenge = query.get("hub.challenge", "")
    if query.get("hub.mode") != "subscribe" or not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", challenge):
        raise Refused(400, "handshake", "hub.mode is not subscribe, or hub.challenge is missing")
    if not any_equal([token.encode()] if token else [], [query.get("hub.verify_token", "").encode()]):
        raise forged("hub.verify_token is not ours")
    return challenge.encode()


def read(request: Request, document: dict[str, Any]) -> Event:
    """There is no id: the same bytes are the same event, and what is sent again is sent as it was."""
    if not isinstance(document.get("entry"), list) or not document["entry"]:
        raise Refused(422, "fields", "entry is missing or no list")
    return Event(
        id=hashlib.sha256(request.body).hexdigest(),
        topic=topic(document.get("object"), "object"),
        order=key(inside(document, "entry", 0, "id")),
        occurred_at=moment(inside(document, "entry", 0, "time")),
    )
