"""Senders of our own, signed as standardwebhooks.com says: HMAC of ``id.time.body`` in base64."""

from __future__ import annotations

from typing import Any

from ..errors import forged
from .base import Event, Options, Request, any_equal, check_time, from_base64, inside, key, moment, sign, topic, word

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
OPTIONS: dict[str, Any] = {}


def secret_key(secret: str) -> bytes:
    """A secret that starts with whsec_ is base64; any other is what it is."""
    decoded = from_base64(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else b""
    # An empty key would be one that everybody has.
    return decoded or secret.encode()


async def verify(request: Request, endpoint: Options) -> None:
    """Several signatures may be given; those of other schemes than v1 do not count."""
    number, seconds = request.header("webhook-id"), request.header("webhook-timestamp")
    message = b".".join((number.encode(), seconds.encode(), request.body))
    given = [entry.partition(",") for entry in request.header("webhook-signature").split(" ")]
    signatures = [from_base64(text) for scheme, _, text in given if scheme == "v1"][:8]
    if not any_equal((sign(secret_key(secret), message) for secret in endpoint.secrets), signatures):
        raise forged("webhook-signature does not fit webhook-id, webhook-timestamp and the body")
    check_time(seconds, request.now, endpoint.tolerance_seconds)


def read(request: Request, document: dict[str, Any]) -> Event:
    """A message that names no type but an order is an order."""
    kind = "order" if "type" not in document and "order_id" in document else document.get("type")
    return Event(
        id=word(request.headers.get("webhook-id"), "header webhook-id"),
        topic=topic(kind, "type"),
        order=key(inside(document, "order_id"), inside(document, "data", "order_id")),
        occurred_at=moment(inside(document, "timestamp")),
    )


def order(document: dict[str, Any]) -> dict[str, Any]:
    """An order is written as the shop's workflows take it; whoever wraps it has it in ``data``."""
    wrapped = document.get("data")
    return wrapped if isinstance(wrapped, dict) and "order_id" not in document else document
