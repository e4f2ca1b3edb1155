"""The HTTP face: a bare ASGI application."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from .config import Config, Endpoint
from .database import WRONG_DATA, Arrival
from .errors import Refused, Unavailable, forged
from .providers import PROVIDERS, meta
from .providers.base import Request
from .service import Service

_log = logging.getLogger("webhook_handler")
_BODY_SECONDS = 10
# Of all bodies that are being read or wait for their transaction.
_MOST_BYTES = 48 * 1024 * 1024

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, bytes, str]


class App:
    """ASGI application."""

    def __init__(self, config: Config, service: Service) -> None:
        self._settings, self._service = config.settings, service
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        headers = [(b"x-content-type-options", b"nosniff")]
        try:
            status, body, kind = await self._answer(scope, receive)
        except Refused as refused:
            status, body, kind = refused.status, _json({"error": str(refused)}), "application/json"
            if refused.retry_after is not None:
                headers.append((b"retry-after", str(math.ceil(refused.retry_after)).encode()))
            if status == 408:
                # The rest of any other body is read and thrown away; of this one nobody knows when it comes.
                headers.append((b"connection", b"close"))
        headers += [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._service.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._service.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        if path.startswith("/webhooks/"):
            return await self._webhook(path.removeprefix("/webhooks/"), scope, receive)
        if path.startswith("/api/webhooks/"):
            return await self._administer(path.removeprefix("/api/webhooks/"), scope, receive)
        if path == "/health" and method == "GET":
            await self._service.ping()
            return 200, b'{"status":"ok"}', "application/json"
        if path == "/metrics" and method == "GET":
            return 200, self._service.metrics.render(), self._service.metrics.content_type
        raise Refused(404, "path", "there is nothing here")

    async def _webhook(self, name: str, scope: Scope, receive: Receive) -> Answer:
        endpoint = self._settings.endpoints.get(name)
        if endpoint is None:
            self._service.metrics.received.labels("unknown", "path").inc()
            raise Refused(404, "path", "no such webhook is declared")
        began = time.perf_counter()
        try:
            if scope["method"] == "GET" and endpoint.provider == "meta":
                query = dict(parse_qsl(scope["query_string"].decode("ascii", "replace"), max_num_fields=None))
                return 200, meta.handshake(query, endpoint.token), "text/plain"
            if scope["method"] != "POST":
                raise Refused(405, "method", "webhooks are sent by POST")
            number = await self._take(endpoint, scope, receive)
        except Refused as refused:
            self._service.metrics.received.labels(name, refused.reason).inc()
            raise
        if number is None:
            self._service.metrics.received.labels(name, "duplicate").inc()
            return 200, b'{"status":"duplicate"}', "application/json"
        self._service.metrics.received.labels(name, "stored").inc()
        self._service.metrics.seconds.observe(time.perf_counter() - began)
        return 200, b'{"status":"stored","id":%d}' % number, "application/json"

    async def _take(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> int | None:
        """Verify and store one webhook; its number, None if it was there already. Raises Refused."""
        provider = PROVIDERS[endpoint.provider]
        decisive = {*provider.HEADERS, endpoint.options.get("header", "").lower(), "content-type"}
        headers = _headers(scope, decisive)
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "type", "the body must not be compressed")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "type", "content-type must be application/json")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > endpoint.max_body_bytes:
            raise Refused(413, "size", f"the body is larger than {endpoint.max_body_bytes} bytes")
        held = _Held(self)
        try:
            body = await _read(receive, endpoint.max_body_bytes, held)
            request = Request(headers, body, time.time())
            await provider.verify(request, endpoint)
            event = provider.read(request, _document(body))
            if wait := await self._service.limits.wait_for(endpoint.name):
                raise Refused(429, "limit", "more webhooks than are allowed", wait)
            return await self._store(
                Arrival(
                    store=endpoint.store,
                    endpoint=endpoint.name,
                    event_id=event.id,
                    topic=event.topic,
                    order_key=event.order,
                    occurred_at=event.occurred_at,
                    id_signed=event.id_signed,
                    body=body,
                    consumers=tuple(self._settings.consumers_of(endpoint.name, event.topic)),
                )
            )
        finally:
            held.release()

    async def _store(self, arrival: Arrival) -> int | None:
        try:
            return await self._service.store(arrival)
        except TimeoutError as error:
            # It may be stored yet: then the next attempt is a duplicate.
            raise Unavailable("database", "the database is too slow") from error
        except WRONG_DATA as error:
            _log.error("the database refuses an event of %s: %s", arrival.endpoint, error)
            raise Unavailable("database", "the event cannot be stored now") from error

    async def _administer(self, path: str, scope: Scope, receive: Receive) -> Answer:
        """Look at events and replay them: for those who know the token."""
        given = _headers(scope, {"authorization"}).get("authorization", "").encode()
        token = self._settings.admin_token
        if not token or not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise forged("header authorization must be 'Bearer' and the token")
        what, _, rest = path.partition("/")
        wanted = (scope["method"], what, bool(rest))
        if wanted == ("GET", "dead", False):
            return 200, _json({"dead": await self._service.database.dead(200)}), "application/json"
        if wanted == ("GET", "events", True):
            event = await self._service.database.event(_number(rest))
            if event is None:
                raise Refused(404, "path", f"there is no event {rest}")
            return 200, _json(event), "application/json"
        if wanted == ("POST", "replay", False):
            held = _Held(self)
            try:
                document = _document(await _read(receive, 1024, held))
            finally:
                held.release()
            number = None if document.get("id") == "dead" else _number(document.get("id"))
            return 200, _json({"replayed": await self._service.replay(number)}), "application/json"
        raise Refused(404, "path", "known are GET dead, GET events/<id>, POST replay")

    def hold(self, size: int) -> None:
        """Count bytes that are held in memory. Raises Unavailable."""
        if self._held + size > _MOST_BYTES:
            raise Unavailable("busy", "too many webhooks at once")
        self._held += size

    def let_go(self, size: int) -> None:
        """Count bytes that are not held any more."""
        self._held -= size


class _Held:
    """What one request holds."""

    def __init__(self, app: App) -> None:
        self._app, self._size = app, 0

    def add(self, size: int) -> None:
        self._app.hold(size)
        self._size += size

    def release(self) -> None:
        self._app.let_go(self._size)


def _headers(scope: Scope, decisive: set[str]) -> dict[str, str]:
    """The headers by name; one of ``decisive`` that is given twice is refused."""
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1")
        if name in headers and name in decisive:
            raise Refused(400, "header", f"header {name} is given twice")
        headers[name] = value.decode("latin-1")
    return headers


async def _read(receive: Receive, largest: int, held: _Held) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "cut", "the request ended early")
                piece = message.get("body", b"")
                if len(body) + len(piece) > largest:
                    raise Refused(413, "size", f"the body is larger than {largest} bytes")
                held.add(len(piece))
                body += piece
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise Refused(408, "slow", f"the body took longer than {_BODY_SECONDS} s") from error


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "json", "the body is not JSON in UTF-8") from error
    if not isinstance(document, dict):
        raise Refused(400, "json", "the body is not a JSON object")
    return document


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _number(value: object) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 18):
        raise Refused(422, "fields", "id must be the number of an event, or dead")
    return int(text)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=_text).encode()


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
