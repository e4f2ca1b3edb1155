"""PayPal: RSA over ``id|time|webhook id|CRC32 of the body``, with a certificate that lies at PayPal."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ..errors import Unavailable, forged
from .base import Event, Options, Request, from_base64, inside, key, moment, topic, word

HEADERS = (
    "paypal-transmission-id",
    "paypal-transmission-time",
    "paypal-transmission-sig",
    "paypal-cert-url",
    "paypal-auth-algo",
)
# webhook_id: the number that PayPal has given this endpoint, which is part of what is signed.
OPTIONS = {"webhook_id": ""}
# A certificate from anywhere else proves nothing.
HOSTS = ("api.paypal.com", "api.sandbox.paypal.com", "api-m.paypal.com", "api-m.sandbox.paypal.com")
PATH = re.compile(r"/v1/notifications/certs/[A-Za-z0-9_-]{1,100}")
SIGNER = "messageverificationcerts"

Fetch = Callable[[str], Awaitable[bytes]]


class Certificates:
    """Public keys by the address of their certificate; few are kept, and strangers cannot have many fetched."""

    def __init__(self, fetch: Fetch, *, kept: int = 8, every: float = 2.0) -> None:
        """``fetch`` gets an address of PayPal's; after one that failed nothing is fetched for ``every`` seconds."""
        self._fetch = fetch
        self._kept = kept
        self._every = every
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._not_before = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def get(self, url: str, now: float) -> Any:
        """The certificate at ``url``. Raises Refused."""
        check_address(url)
        async with self._one_at_a_time:
            if url not in self._known:
                if time.monotonic() < self._not_before:
                    raise Unavailable("certificate", "PayPal's certificates were asked for too often")
                self._not_before = time.monotonic() + self._every
                self._known[url] = _read(await self._fetch(url))
                self._not_before = 0.0
                while len(self._known) > self._kept:
                    self._known.popitem(last=False)
        certificate = self._known[url]
        if not certificate.not_valid_before_utc <= datetime.fromtimestamp(now, UTC) <= certificate.not_valid_after_utc:
            self._known.pop(url, None)
            raise forged("the certificate of paypal-cert-url is not valid now")
        return certificate


def check_address(url: str) -> None:
    """Refuse every address but those under which PayPal keeps its certificates."""
    try:
        parts = urlsplit(url)
        good = parts.scheme == "https" and parts.netloc in HOSTS and PATH.fullmatch(parts.path)
    except ValueError:
        good = None
    if not good or parts.query or parts.fragment or not url.isascii():
        raise forged("paypal-cert-url is not where PayPal keeps its certificates")


def _read(pem: bytes) -> Any:
    # Here, because it costs memory that a shop without PayPal does not need.
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        [name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise forged("there is no certificate at paypal-cert-url") from error
    if not str(name.value).startswith(SIGNER) or not str(name.value).endswith(".paypal.com"):
        raise forged("the certificate of paypal-cert-url is not the one that signs webhooks")
    return certificate


# Set when the service starts, because it needs the way out.
certificates: Certificates | None = None


async def verify(request: Request, endpoint: Options) -> None:
    """The time is signed too; PayPal repeats a webhook for three days, hence the wide tolerance."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    number, sent = request.header("paypal-transmission-id"), request.header("paypal-transmission-time")
    signature = from_base64(request.header("paypal-transmission-sig"))
    if request.header("paypal-auth-algo") != "SHA256withRSA":
        raise forged("paypal-auth-algo is not SHA256withRSA")
    signed_at = moment(sent)
    if signed_at is None or abs(request.now - signed_at.timestamp()) > endpoint.tolerance_seconds:
        raise forged("paypal-transmission-time is no time, or too far from now")
    if certificates is None:
        raise Unavailable("certificate", "the service has not started yet")
    public = (await certificates.get(request.header("paypal-cert-url"), request.now)).public_key()
    message = f"{number}|{sent}|{endpoint.options['webhook_id']}|{zlib.crc32(request.body)}".encode()
    try:
        if not isinstance(public, RSAPublicKey):
            raise forged("the certificate of paypal-cert-url holds no RSA key")
        public.verify(signature, message, PKCS1v15(), SHA256())
    except InvalidSignature as error:
        raise forged("paypal-transmission-sig does not fit") from error


def read(request: Request, document: dict[str, Any]) -> Event:
    """A payment's events belong to the order that it was made for."""
    about = document.get("resource")
    return Event(
        id=word(document.get("id"), "id"),
        topic=topic(document.get("event_type"), "event_type"),
        order=key(inside(about, "supplementary_data", "related_ids", "order_id"), inside(about, "id")),
        occurred_at=moment(document.get("create_time")),
    )
