"""Webhooks that must not come in, as a table: what is wrong, the answer, and a word of its error."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from intake_calls import Call, custom, mac, meta, shipping, shopify, stripe, telegram
from intake_parts import SECRETS


class Bad(NamedTuple):
    """One kind: its name, how it is made, what it is answered with."""

    name: str
    make: Callable[[], Call]
    status: int
    says: str
    method: str = "POST"
    kind: str = "application/json"


def without(call: Call, *names: str) -> Call:
    return call._replace(headers={name: value for name, value in call.headers.items() if name not in names})


def having(call: Call, **headers: str) -> Call:
    return call._replace(headers=call.headers | {name.replace("_", "-"): value for name, value in headers.items()})


def altered(call: Call, body: bytes | None = None) -> Call:
    """With a body that was not signed: one byte differs, or another one altogether."""
    return call._replace(body=body if body is not None else call.body.replace(b'"', b"'", 1))


def paypal(**headers: str) -> Call:
    """Never signed by PayPal."""
    given = {
        "paypal-transmission-id": secrets.token_hex(16),
        "paypal-transmission-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "paypal-transmission-sig": base64.b64encode(secrets.token_bytes(256)).decode(),
        "paypal-cert-url": "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270",
        "paypal-auth-algo": "SHA256withRSA",
    }
    body = json.dumps({"id": "WH-1", "event_type": "PAYMENT.CAPTURE.COMPLETED", "resource": {}}).encode()
    return Call("paypal", given | {name.replace("_", "-"): value for name, value in headers.items()}, body)


def stripe_header(form: str) -> Call:
    """A signature header of another form; {t} is now, {s} the right signature."""
    call = stripe()
    seconds = str(int(time.time()))
    right = mac(SECRETS["stripe"][0].encode(), f"{seconds}.".encode() + call.body).hex()
    return having(call, stripe_signature=form.format(t=seconds, s=right))


def cert(url: str) -> Callable[[], Call]:
    return lambda: paypal(paypal_cert_url=url)


def signed(body: bytes) -> Callable[[], Call]:
    """Rightly signed, with a body that is none."""
    return lambda: custom(body=body)


HOUR = 3600
CERTS = "/v1/notifications/certs/CERT-1"
KINDS = (
    # Where to, and how
    Bad("unknown provider", lambda: custom()._replace(endpoint="amazon"), 404, "no such"),
    Bad("no provider", lambda: custom()._replace(endpoint=""), 404, "no such"),
    Bad("unknown second store", lambda: custom()._replace(endpoint="custom/third"), 404, "no such"),
    Bad("provider in capitals", lambda: custom()._replace(endpoint="CUSTOM"), 404, "no such"),
    Bad("path that climbs", lambda: custom()._replace(endpoint="../webhooks/custom"), 404, "no such"),
    Bad("escaped path", lambda: custom()._replace(endpoint="custom%2f..%2fmeta"), 404, "no such"),
    Bad("GET", custom, 405, "POST", "GET"),
    Bad("PUT", custom, 405, "POST", "PUT"),
    Bad("DELETE", custom, 405, "POST", "DELETE"),
    Bad("form", custom, 415, "application/json", kind="application/x-www-form-urlencoded"),
    Bad("text", custom, 415, "application/json", kind="text/plain"),
    Bad("no content type", custom, 415, "application/json", kind=""),
    Bad("XML", shopify, 415, "application/json", kind="application/xml"),
    Bad("compressed", lambda: having(custom(), content_encoding="gzip"), 415, "compressed"),
    # Too much
    Bad("10 MB", signed(b'{"type":"t","a":"' + b"x" * 10_000_000 + b'"}'), 413, "larger"),
    Bad("one byte too many", signed(b'{"type":"t","a":"' + b"x" * (1024 * 1024 - 18) + b'"}'), 413, "larger"),
    Bad(
        "above this endpoint's limit",
        lambda: telegram({"update_id": 1, "message": {"text": "x" * 5000}}),
        413,
        "larger",
    ),
    # Shopify
    Bad("shopify: no signature", lambda: without(shopify(), "x-shopify-hmac-sha256"), 401, "missing"),
    Bad("shopify: empty signature", lambda: having(shopify(), x_shopify_hmac_sha256=""), 401, "missing"),
    Bad("shopify: wrong secret", lambda: shopify(secret="somebody else's"), 401, "does not fit"),
    Bad("shopify: body altered", lambda: altered(shopify()), 401, "does not fit"),
    Bad("shopify: body cut", lambda: altered(shopify(), b'{"id": 1'), 401, "does not fit"),
    Bad("shopify: space after the body", lambda: altered(shopify(), shopify().body + b" "), 401, "does not fit"),
    Bad("shopify: signature in hex", lambda: having(shopify(), x_shopify_hmac_sha256="ab" * 32), 401, "does not fit"),
    Bad("shopify: no base64", lambda: having(shopify(), x_shopify_hmac_sha256="%%%"), 401, "does not fit"),
    Bad("shopify: no id", lambda: without(shopify(), "x-shopify-webhook-id"), 422, "webhook-id"),
    Bad("shopify: id too long", lambda: having(shopify(), x_shopify_webhook_id="x" * 201), 422, "webhook-id"),
    Bad("shopify: no topic", lambda: without(shopify(), "x-shopify-topic"), 422, "topic"),
    Bad("shopify: topic with a space", lambda: having(shopify(), x_shopify_topic="orders create"), 422, "topic"),
    # Stripe
    Bad("stripe: no signature", lambda: without(stripe(), "stripe-signature"), 401, "missing"),
    Bad("stripe: wrong secret", lambda: stripe(secret="whsec_other"), 401, "does not fit"),
    Bad("stripe: body altered", lambda: altered(stripe()), 401, "does not fit"),
    Bad("stripe: replayed an hour later", lambda: stripe(at=time.time() - HOUR), 401, "clock"),
    Bad("stripe: from the future", lambda: stripe(at=time.time() + HOUR), 401, "clock"),
    Bad("stripe: time altered", lambda: stripe_header("t=1,v1={s}"), 401, "does not fit"),
    Bad("stripe: no time", lambda: stripe_header("v1={s}"), 401, "no time"),
    Bad("stripe: two times", lambda: stripe_header("t={t},t=1,v1={s}"), 401, "several"),
    Bad("stripe: only the old scheme", lambda: stripe_header("t={t},v0={s}"), 401, "does not fit"),
    Bad("stripe: signature with spaces", lambda: stripe_header("t={t},v1= {s}"), 401, "does not fit"),
    Bad("stripe: rubbish", lambda: stripe_header("{{}}"), 401, "no time"),
    Bad("stripe: no id", lambda: stripe({"type": "charge.refunded"}), 422, "id"),
    Bad("stripe: no type", lambda: stripe({"id": "evt_1"}), 422, "type"),
    # PayPal: nothing is fetched for these
    Bad("paypal: no signature", lambda: without(paypal(), "paypal-transmission-sig"), 401, "missing"),
    Bad("paypal: other algorithm", lambda: paypal(paypal_auth_algo="none"), 401, "SHA256withRSA"),
    Bad("paypal: sent last month", lambda: paypal(paypal_transmission_time="2026-10-01T00:00:00Z"), 401, "too far"),
    Bad("paypal: no time", lambda: paypal(paypal_transmission_time="yesterday"), 401, "no time"),
    Bad("paypal: stranger's certificate", cert(f"https://evil.example{CERTS}"), 401, "where PayPal"),
    Bad("paypal: almost its host", cert(f"https://api.paypal.com.evil.example{CERTS}"), 401, "where PayPal"),
    Bad("paypal: host in the user name", cert(f"https://api.paypal.com@evil.example{CERTS}"), 401, "where PayPal"),
    Bad("paypal: other port", cert(f"https://api.paypal.com:8443{CERTS}"), 401, "where PayPal"),
    Bad("paypal: without TLS", cert(f"http://api.paypal.com{CERTS}"), 401, "where PayPal"),
    Bad("paypal: other path", cert("https://api.paypal.com/open-redirect"), 401, "where PayPal"),
    Bad("paypal: path that climbs", cert("https://api.paypal.com/v1/notifications/certs/../x"), 401, "where PayPal"),
    Bad("paypal: query", cert(f"https://api.paypal.com{CERTS}?to=evil.example"), 401, "where PayPal"),
    Bad("paypal: the machine itself", cert("file:///etc/passwd"), 401, "where PayPal"),
    Bad("paypal: no address", cert("https://[api.paypal.com"), 401, "where PayPal"),
    # Shipping
    Bad("shipping: no signature", lambda: without(shipping(), "x-hmac-signature"), 401, "missing"),
    Bad("shipping: wrong secret", lambda: shipping(secret="another one"), 401, "does not fit"),
    Bad("shipping: body altered", lambda: altered(shipping()), 401, "does not fit"),
    Bad("shipping: no prefix", lambda: having(shipping(), x_hmac_signature="ab" * 32), 401, "does not fit"),
    Bad("shipping: no type", lambda: shipping({"id": "evt_1"}), 422, "type"),
    # Telegram
    Bad("telegram: no token", lambda: without(telegram(), "x-telegram-bot-api-secret-token"), 401, "missing"),
    Bad("telegram: wrong token", lambda: telegram(token="guessed"), 401, "not ours"),
    Bad("telegram: beginning of the token", lambda: telegram(token=SECRETS["telegram"][0][:-1]), 401, "not ours"),
    Bad("telegram: no number", lambda: telegram({"message": {}}), 422, "update_id"),
    Bad("telegram: number that is text", lambda: telegram({"update_id": "a b", "message": {}}), 422, "update_id"),
    Bad("telegram: two kinds", lambda: telegram({"update_id": 1, "message": {}, "poll": {}}), 422, "update_id"),
    # Meta
    Bad("meta: no signature", lambda: without(meta(), "x-hub-signature-256"), 401, "missing"),
    Bad("meta: wrong secret", lambda: meta(secret="other app"), 401, "does not fit"),
    Bad("meta: body altered", lambda: altered(meta()), 401, "does not fit"),
    Bad("meta: SHA-1", lambda: having(meta(), x_hub_signature_256="sha1=" + "ab" * 20), 401, "does not fit"),
    Bad("meta: no entry", lambda: meta({"object": "page", "entry": []}), 422, "entry"),
    Bad("meta: no object", lambda: meta({"entry": [{"id": "1"}]}), 422, "object"),
    # Our own
    Bad("custom: no signature", lambda: without(custom(), "webhook-signature"), 401, "missing"),
    Bad("custom: no id", lambda: without(custom(), "webhook-id"), 401, "missing"),
    Bad("custom: wrong secret", lambda: custom(secret=b"guessed"), 401, "does not fit"),
    Bad("custom: secret of the second store", lambda: custom(secret=b"custom-second-secret"), 401, "does not fit"),
    Bad("custom: id altered", lambda: having(custom(), webhook_id="msg_other"), 401, "does not fit"),
    Bad("custom: time altered", lambda: having(custom(), webhook_timestamp="1"), 401, "does not fit"),
    Bad("custom: replayed an hour later", lambda: custom(at=time.time() - HOUR), 401, "clock"),
    Bad("custom: other scheme", lambda: having(custom(), webhook_signature="v2,YWJj"), 401, "does not fit"),
    Bad("custom: no type", lambda: custom({"data": {}}), 422, "type"),
    Bad("custom: type is a list", lambda: custom({"type": ["order"]}), 422, "type"),
    Bad("custom: id with a line break", lambda: custom(number="a\tb"), 422, "webhook-id"),
    # Rightly signed, and no JSON object
    Bad("empty body", signed(b""), 400, "JSON"),
    Bad("half an object", signed(b'{"type": "order"'), 400, "JSON"),
    Bad("list", signed(b'[{"type": "order"}]'), 400, "object"),
    Bad("number", signed(b"17"), 400, "object"),
    Bad("NaN", signed(b'{"type": "order", "total": NaN}'), 400, "JSON"),
    Bad("Latin-1", signed('{"type": "order", "name": "Zo\xeb"}'.encode("latin-1")), 400, "UTF-8"),
    Bad("UTF-16", signed('{"type": "order"}'.encode("utf-16")), 400, "UTF-8"),
    Bad("byte order mark", signed(b'\xef\xbb\xbf{"type": "order"}'), 400, "JSON"),
    Bad("100,000 brackets", signed(b'{"type":"t","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), 400, "JSON"),
    Bad("number of 10,000 digits", signed(b'{"type": "t", "a": ' + b"9" * 10_000 + b"}"), 400, "JSON"),
    Bad("two objects", signed(b'{"type": "t"}{"type": "t"}'), 400, "JSON"),
    Bad("zero byte after it", signed(b'{"type": "t"}\0'), 400, "JSON"),
)
