"""Carriers and those who watch parcels for a shop: HMAC of the raw body, in a header that each names otherwise."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Any

from ..errors import forged
from .base import Event, Options, Request, any_equal, from_base64, from_hex, inside, key, moment, sign, topic

HEADERS: tuple[str, ...] = ()
# As EasyPost does it. AfterShip: {header: as-signature-hmac-sha256, prefix: "", encoding: base64}.
OPTIONS = {"header": "x-hmac-signature", "prefix": "hmac-sha256-hex=", "encoding": "hex"}
CHOICES = {"encoding": {"hex": from_hex, "base64": from_base64}}


async def verify(request: Request, endpoint: Options) -> None:
    """EasyPost normalises the secret; one of plain characters stays what it is."""
    name, prefix = endpoint.options["header"].lower(), endpoint.options["prefix"]
    value = request.header(name)
    decode = CHOICES["encoding"][endpoint.options["encoding"]]
    given = decode(value.removeprefix(prefix)) if value.startswith(prefix) else b""
    keys = (unicodedata.normalize("NFKD", secret).encode() for secret in endpoint.secrets)
    if not any_equal((sign(secret, request.body) for secret in keys), [given]):
        raise forged(f"{name} does not fit the body")


def read(request: Request, document: dict[str, Any]) -> Event:
    """What is told of one parcel stays in sequence."""
    parcel = document.get("result") or document.get("msg") or document.get("data") or document
    return Event(
        id=key(document.get("id"), document.get("event_id")) or hashlib.sha256(request.body).hexdigest(),
        topic=topic(document.get("description") or document.get("event") or document.get("type"), "type"),
        order=key(inside(parcel, "tracking_code"), inside(parcel, "tracking_number"), inside(parcel, "id")),
        occurred_at=moment(document.get("created_at")) or moment(inside(parcel, "updated_at")),
    )
