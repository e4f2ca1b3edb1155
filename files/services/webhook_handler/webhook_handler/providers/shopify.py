"""Shopify: HMAC of the raw body in base64, signed with the app's client secret."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from ..errors import Refused, forged
from .base import Event, Options, Request, any_equal, from_base64, inside, key, moment, sign, topic, word

HEADERS = ("x-shopify-hmac-sha256", "x-shopify-webhook-id", "x-shopify-topic", "x-shopify-shop-domain")
# shop: the domain that has to be named, corner.myshopify.com; "" for any.
OPTIONS = {"shop": ""}

# Currencies whose smallest unit is not a hundredth (ISO 4217).
_EXPONENTS = dict.fromkeys(
    ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"], 0
) | dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3)

# The largest whole number that every reader of JSON understands.
_LARGEST = 2**53 - 1


async def verify(request: Request, endpoint: Options) -> None:
    """Hold the body against the signature, and the shop's domain, which is not signed, against ours."""
    given = from_base64(request.header("x-shopify-hmac-sha256"))
    if not any_equal((sign(secret.encode(), request.body) for secret in endpoint.secrets), [given]):
        raise forged("x-shopify-hmac-sha256 does not fit the body")
    shop = endpoint.options["shop"]
    if shop and request.headers.get("x-shopify-shop-domain") != shop:
        raise forged(f"x-shopify-shop-domain is not {shop}")


def read(request: Request, document: dict[str, Any]) -> Event:
    """The id and the kind stand in headers, which the signature does not cover."""
    kind = topic(request.headers.get("x-shopify-topic"), "header x-shopify-topic")
    return Event(
        id=word(request.headers.get("x-shopify-webhook-id"), "header x-shopify-webhook-id"),
        topic=kind,
        order=key(inside(document, "order_id"), inside(document, "id")),
        occurred_at=moment(request.headers.get("x-shopify-triggered-at")) or moment(inside(document, "updated_at")),
        id_signed=False,
    )


def order(document: dict[str, Any]) -> dict[str, Any]:
    """An order of Shopify's as the shop's own workflows take it. Raises Refused where a field is missing."""
    currency = document.get("currency")
    exponent = _EXPONENTS.get(currency, 2) if isinstance(currency, str) else 2
    return {
        "order_id": word(document.get("id"), "id"),
        "source": "shopify",
        "total_cents": minor_units(document.get("total_price"), exponent, "total_price"),
        "currency": currency,
        "items": [
            {
                "sku": key(inside(line, "sku"), inside(line, "variant_id"), inside(line, "id")),
                "quantity": inside(line, "quantity"),
                "price_cents": minor_units(inside(line, "price"), exponent, "line_items.price"),
            }
            for line in document.get("line_items") or []
        ],
    }


def minor_units(amount: object, exponent: int, what: str) -> int:
    """``"49.90"`` as 4990. Raises Refused for what is no amount of this currency."""
    try:
        units = Decimal(amount if isinstance(amount, str) else "").scaleb(exponent)
    except InvalidOperation:
        units = Decimal("NaN")
    if not units.is_finite() or units != units.to_integral_value() or abs(units) > _LARGEST:
        raise Refused(422, "fields", f"{what} is not an amount of its currency")
    return int(units)
