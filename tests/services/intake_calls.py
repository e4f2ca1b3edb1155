"""Webhooks as their senders sign them, and a small HTTP client that can also be rude."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import time
from typing import Any, NamedTuple

from intake_parts import SECRETS

Headers = dict[str, str]


class Call(NamedTuple):
    """One webhook."""

    endpoint: str
    headers: Headers
    body: bytes


class Answer(NamedTuple):
    """Status, headers (names in lower case) and JSON body (None where there is none)."""

    status: int
    headers: Headers
    document: Any


def mac(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, hashlib.sha256)


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def shopify(document: dict[str, Any] | None = None, *, secret: str = SECRETS["shopify"][0], **headers: str) -> Call:
    body = _json(document if document is not None else shopify_order())
    signed = {
        "x-shopify-hmac-sha256": base64.b64encode(mac(secret.encode(), body)).decode(),
        "x-shopify-webhook-id": secrets.token_hex(8),
        "x-shopify-topic": "orders/create",
        "x-shopify-shop-domain": "corner.myshopify.com",
        "x-shopify-triggered-at": "2026-11-20T10:00:00.123456789Z",
    }
    return Call("shopify", signed | {name.replace("_", "-"): value for name, value in headers.items()}, body)


def shopify_order(number: int | None = None) -> dict[str, Any]:
    return {
        "id": number or secrets.randbelow(10**12) + 1,
        "currency": "EUR",
        "total_price": "49.90",
        "line_items": [{"sku": "MUG", "quantity": 2, "price": "24.95"}],
    }


def stripe(
    document: dict[str, Any] | None = None, *, secret: str = SECRETS["stripe"][0], at: float | None = None
) -> Call:
    about = {"id": "pi_1", "metadata": {"order_id": "A-1"}}
    event = {"id": f"evt_{secrets.token_hex(8)}", "type": "payment_intent.succeeded", "data": {"object": about}}
    body = _json(document if document is not None else event)
    seconds = str(int(at if at is not None else time.time()))
    signature = mac(secret.encode(), seconds.encode() + b"." + body).hex()
    return Call("stripe", {"stripe-signature": f"t={seconds},v1={signature},v0=00"}, body)


def shipping(document: dict[str, Any] | None = None, *, secret: str = SECRETS["shipping"][0]) -> Call:
    event = {"id": f"evt_{secrets.token_hex(8)}", "description": "tracker.updated", "result": {"tracking_code": "T1"}}
    body = _json(document if document is not None else event)
    return Call("shipping", {"x-hmac-signature": f"hmac-sha256-hex={mac(secret.encode(), body).hex()}"}, body)


def telegram(document: dict[str, Any] | None = None, *, token: str = SECRETS["telegram"][0]) -> Call:
    update = {"update_id": secrets.randbelow(10**9), "message": {"chat": {"id": 7}, "date": 1790000000, "text": "hi"}}
    body = _json(document if document is not None else update)
    return Call("telegram", {"x-telegram-bot-api-secret-token": token}, body)


def meta(document: dict[str, Any] | None = None, *, secret: str = SECRETS["meta"][0]) -> Call:
    change = {"object": "instagram", "entry": [{"id": "17", "time": 1790000000, "nonce": secrets.token_hex(8)}]}
    body = _json(document if document is not None else change)
    return Call("meta", {"x-hub-signature-256": f"sha256={mac(secret.encode(), body).hex()}"}, body)


def custom(
    document: Any = None,
    *,
    body: bytes | None = None,
    number: str | None = None,
    secret: bytes | None = None,
    at: float | None = None,
    endpoint: str = "custom",
) -> Call:
    """An order, or what is given; ``body`` is sent as it is."""
    order = {
        "order_id": f"A-{secrets.token_hex(6)}",
        "source": "instagram",
        "total_cents": 4990,
        "currency": "EUR",
        "items": [{"sku": "MUG", "quantity": 2, "price_cents": 2495}],
    }
    content = body if body is not None else _json(document if document is not None else order)
    name = number if number is not None else f"msg_{secrets.token_hex(8)}"
    seconds = str(int(at if at is not None else time.time()))
    key = secret if secret is not None else SECRETS[endpoint][0].encode()
    signature = base64.b64encode(mac(key, name.encode() + b"." + seconds.encode() + b"." + content)).decode()
    headers = {"webhook-id": name, "webhook-timestamp": seconds, "webhook-signature": f"v1,{signature}"}
    return Call(endpoint, headers, content)


SENDERS = (shopify, stripe, shipping, telegram, meta, custom)


def send(address: tuple[str, int], call: Call, *, method: str = "POST", kind: str = "application/json") -> Answer:
    """Send one webhook over a connection of its own."""
    return request(address, method, f"/webhooks/{call.endpoint}", call.body, {"content-type": kind} | call.headers)


def request(
    address: tuple[str, int], method: str, path: str, body: bytes | None = None, headers: Headers | None = None
) -> Answer:
    connection = http.client.HTTPConnection(*address, timeout=15)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        text = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        kind = names.get("content-type", "")
        return Answer(response.status, names, json.loads(text) if "json" in kind else text.decode())
    finally:
        connection.close()
