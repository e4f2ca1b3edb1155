"""Stripe: HMAC of ``time.body`` in a header that may hold several signatures while the secret is being changed."""

from __future__ import annotations

from typing import Any

from ..errors import forged
from .base import Event, Options, Request, any_equal, check_time, from_hex, inside, key, moment, sign, topic, word

HEADERS = ("stripe-signature",)
OPTIONS: dict[str, Any] = {}


async def verify(request: Request, endpoint: Options) -> None:
    """``v0`` and other schemes do not count: they are weaker."""
    pairs = [item.strip().partition("=") for item in request.header("stripe-signature").split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    if len(times) != 1:
        raise forged("stripe-signature has no time, or several")
    message = times[0].encode() + b"." + request.body
    given = [from_hex(value) for name, _, value in pairs if name == "v1"][:8]
    if not any_equal((sign(secret.encode(), message) for secret in endpoint.secrets), given):
        raise forged("stripe-signature does not fit the body")
    check_time(times[0], request.now, endpoint.tolerance_seconds)


def read(request: Request, document: dict[str, Any]) -> Event:
    """Events of one payment stay in sequence; where the shop has noted its order's number in it, those of one order."""
    about = inside(document, "data", "object")
    return Event(
        id=word(document.get("id"), "id"),
        topic=topic(document.get("type"), "type"),
        order=key(inside(about, "metadata", "order_id"), inside(about, "payment_intent"), inside(about, "id")),
        occurred_at=moment(document.get("created")),
    )
