"""Who sends webhooks: what the real signatures of each look like, and what is read from their bodies."""

from __future__ import annotations

import asyncio
import base64
import datetime
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from webhook_handler.errors import Refused, Unavailable
from webhook_handler.providers import PROVIDERS, custom, meta, paypal, shopify, stripe
from webhook_handler.providers.base import Request, moment

NOW = 1_790_000_000.0
SENT = "2026-09-21T14:13:20Z"
CERT = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42"
BODY = b'{"id": "WH-1", "event_type": "PAYMENT.CAPTURE.COMPLETED", "resource": {"id": "9"}}'


def endpoint(*secrets: str, **options: str) -> Any:
    return SimpleNamespace(secrets=secrets, tolerance_seconds=300, options=options)


def verify(module: Any, headers: dict[str, str], body: bytes, at: Any, now: float = NOW) -> None:
    asyncio.run(module.verify(Request(headers, body, now), at))


def test_there_are_seven() -> None:
    assert set(PROVIDERS) == {"shopify", "stripe", "paypal", "shipping", "telegram", "meta", "custom"}


def test_standard_webhooks_own_example_fits() -> None:
    """The vector that its libraries are tested with."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    at = endpoint("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    verify(custom, headers, b'{"test": 2432232314}', at, now=1614265330)
    with pytest.raises(Refused):
        verify(custom, headers, b'{"test": 2432232315}', at, now=1614265330)


@pytest.mark.parametrize("secret", ["whsec_%%%", "whsec_"])
def test_a_secret_that_decodes_to_nothing_signs_nothing(secret: str) -> None:
    """An empty key would be one that everybody has."""
    import hmac

    signature = base64.b64encode(hmac.digest(b"", b"m.1790000000.{}", "sha256")).decode()
    headers = {"webhook-id": "m", "webhook-timestamp": "1790000000", "webhook-signature": f"v1,{signature}"}
    with pytest.raises(Refused):
        verify(custom, headers, b"{}", endpoint(secret))


@pytest.mark.parametrize("module", [stripe, shopify, meta, custom])
def test_without_a_secret_nobody_is_let_in(module: Any) -> None:
    headers = dict.fromkeys(module.HEADERS, "t=1790000000,v1=") | {"webhook-timestamp": "1790000000"}
    with pytest.raises(Refused):
        verify(module, headers, b"{}", endpoint(shop=""))


def certificate(key: Any, name: str = "messageverificationcerts.paypal.com", days: int = 30) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime.fromtimestamp(NOW, datetime.UTC) - datetime.timedelta(days=1)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def key() -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signed(key: Any, webhook_id: str = "WH-ID", **changes: str) -> dict[str, str]:
    message = f"number|{SENT}|{webhook_id}|{zlib.crc32(BODY)}".encode()
    signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return {
        "paypal-transmission-id": "number",
        "paypal-transmission-time": SENT,
        "paypal-transmission-sig": base64.b64encode(signature).decode(),
        "paypal-cert-url": CERT,
        "paypal-auth-algo": "SHA256withRSA",
        **changes,
    }


class Store:
    """Where certificates lie; it notes what was fetched."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content, self.fetched = content, []  # type: tuple[bytes | Exception, list[str]]

    async def __call__(self, url: str) -> bytes:
        self.fetched.append(url)
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


def paid(store: Store, *headers: dict[str, str], body: bytes = BODY) -> None:
    """Verify one after the other."""

    async def run() -> None:
        paypal.certificates = paypal.Certificates(store)
        for one in headers:
            await paypal.verify(Request(one, body, NOW), endpoint(webhook_id="WH-ID"))

    asyncio.run(run())


def test_paypals_signature_fits_and_its_certificate_is_fetched_once(key: Any) -> None:
    store = Store(certificate(key))
    paid(store, signed(key), signed(key))
    assert store.fetched == [CERT]


@pytest.mark.parametrize(
    ("changes", "body", "says"),
    [
        ({"webhook_id": "WH-OTHER"}, BODY, "sig does not fit"),
        ({}, BODY + b" ", "sig does not fit"),
        ({"paypal-transmission-id": "other"}, BODY, "sig does not fit"),
        ({"paypal-transmission-time": "2026-09-21T14:13:21Z"}, BODY, "sig does not fit"),
        ({"paypal-transmission-time": "2026-09-21T15:13:20Z"}, BODY, "too far"),
        ({"paypal-transmission-time": "2026-09-21T14:13:20"}, BODY, "no time"),
    ],
)
def test_what_paypal_has_not_signed_is_refused(key: Any, changes: dict[str, str], body: bytes, says: str) -> None:
    webhook_id = changes.pop("webhook_id", "WH-ID") if "webhook_id" in changes else "WH-ID"
    with pytest.raises(Refused, match=says):
        paid(Store(certificate(key)), signed(key, webhook_id=webhook_id, **changes), body=body)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>", "no certificate"),
        ("evil.example", "not the one that signs"),
        ("messageverificationcerts.paypal.com.evil.example", "not the one that signs"),
        (Unavailable("certificate", "it cannot be fetched"), "cannot be fetched"),
    ],
)
def test_a_certificate_that_is_not_paypals_proves_nothing(key: Any, content: Any, says: str) -> None:
    given = certificate(key, content) if isinstance(content, str) else content
    with pytest.raises(Refused, match=says):
        paid(Store(given), signed(key))


def test_a_certificate_that_has_ended_proves_nothing(key: Any) -> None:
    certificates = paypal.Certificates(Store(certificate(key, days=1)))
    with pytest.raises(Refused, match="not valid now"):
        asyncio.run(certificates.get(CERT, NOW + 86400))


def test_strangers_do_not_have_many_certificates_fetched(key: Any) -> None:
    store = Store(Unavailable("certificate", "not found"))

    async def run() -> list[str]:
        certificates, said = paypal.Certificates(store), []
        for number in range(50):
            try:
                await certificates.get(f"{CERT}{number}", NOW)
            except Unavailable as error:
                said.append(str(error))
        return said

    said = asyncio.run(run())
    assert len(store.fetched) == 1
    assert said[1:] == ["PayPal's certificates were asked for too often"] * 49


@pytest.mark.parametrize(
    ("name", "headers", "document", "expected"),
    [
        (
            "stripe",
            {},
            {"id": "evt_1", "type": "charge.refunded", "data": {"object": {"id": "ch_1"}}},
            ("evt_1", "ch_1"),
        ),
        ("stripe", {}, {"id": "e", "type": "t", "data": {"object": {"metadata": {"order_id": "A"}}}}, ("e", "A")),
        ("paypal", {}, {"id": "W", "event_type": "T", "resource": {"id": "9"}}, ("W", "9")),
        (
            "paypal",
            {},
            {"id": "W", "event_type": "T", "resource": {"supplementary_data": {"related_ids": {"order_id": "5"}}}},
            ("W", "5"),
        ),
        ("telegram", {}, {"update_id": 5, "callback_query": {"message": {"chat": {"id": -7}}}}, ("5", "-7")),
        ("shipping", {}, {"event_id": "e", "event": "tracking_update", "msg": {"tracking_number": "T"}}, ("e", "T")),
        ("custom", {"webhook-id": "m"}, {"type": "order.paid", "data": {"order_id": 17}}, ("m", "17")),
        (
            "shopify",
            {"x-shopify-webhook-id": "w", "x-shopify-topic": "refunds/create"},
            {"id": 1, "order_id": 2},
            ("w", "2"),
        ),
        ("shopify", {"x-shopify-webhook-id": "w", "x-shopify-topic": "orders/paid"}, {"id": 1}, ("w", "1")),
        ("shopify", {"x-shopify-webhook-id": "w", "x-shopify-topic": "shop/update"}, {}, ("w", "")),
    ],
)
def test_id_and_order_are_found(
    name: str, headers: dict[str, str], document: dict[str, Any], expected: tuple[str, str]
) -> None:
    event = PROVIDERS[name].read(Request(headers, b"{}", NOW), document)
    assert (event.id, event.order) == expected


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00+00:00"),
        ("2026-11-20T10:00:00.123456789+01:00", "2026-11-20T10:00:00.123456+01:00"),
        (1790000000, "2026-09-21T14:13:20+00:00"),
        ("2026-11-20T10:00:00", "None"),
        # No database takes these.
        ("0001-01-01T00:00:00+14:00", "None"),
        ("9999-12-31T23:59:59-14:00", "None"),
        (10**30, "None"),
        (True, "None"),
        (None, "None"),
        ([], "None"),
    ],
)
def test_times_are_read_or_left_out(text: Any, read: str) -> None:
    found = moment(text)
    assert (found.isoformat() if found else "None") == read


@pytest.mark.parametrize(
    ("amount", "exponent", "units"),
    [("49.90", 2, 4990), ("0.1", 2, 10), ("10", 0, 10), ("1.234", 3, 1234), ("90071992547409.91", 2, 9007199254740991)],
)
def test_money_is_exact(amount: str, exponent: int, units: int) -> None:
    assert shopify.minor_units(amount, exponent, "price") == units


@pytest.mark.parametrize(
    "amount", ["", "free", "1.234", "NaN", "Infinity", None, 49.9, "1e400", "90071992547409.92", "1_0x"]
)
def test_what_is_no_money_is_refused(amount: Any) -> None:
    with pytest.raises(Refused, match="price is not an amount"):
        shopify.minor_units(amount, 2, "price")
