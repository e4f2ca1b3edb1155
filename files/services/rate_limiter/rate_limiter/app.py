"""The HTTP face: a bare ASGI application over the limiter."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any

from .check_request import CheckRequest, InvalidInput
from .limiter import Limiter, Unavailable
from .metrics import Metrics
from .policies import Policy

MAX_BODY_BYTES = 16 * 1024
# Seconds a caller is told to wait while Redis is away.
UNAVAILABLE_RETRY_AFTER = 1

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Headers = ()


class Refusal(Exception):
    """The request is answered with an error instead."""

    def __init__(self, status: int, error: str, headers: Headers = (), **details: object) -> None:
        """Answer ``status`` and ``{"error": error, **details}``."""
        super().__init__(error)
        self.response = Response(status, _json({"error": error, **details}), headers=headers)


class App:
    """ASGI application."""

    def __init__(self, limiter: Limiter, policies: Mapping[str, Policy], metrics: Metrics) -> None:
        """Serve ``policies`` (api -> its limit); ``limiter`` is closed when the server stops."""
        self._limiter = limiter
        self._policies = policies
        self._metrics = metrics
        self._routes: dict[str, dict[str, Callable[[Scope, Receive], Awaitable[Response]]]] = {
            "/api/rate-limit/check": {"GET": self._check_query, "POST": self._check_body},
            "/health": {"GET": self._health},
            "/metrics": {"GET": self._render_metrics},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        try:
            response = await self._handler(scope)(scope, receive)
        except Refusal as refusal:
            response = refusal.response
        headers = [
            (b"content-type", response.content_type),
            (b"content-length", str(len(response.body)).encode()),
            *response.headers,
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def _handler(self, scope: Scope) -> Callable[[Scope, Receive], Awaitable[Response]]:
        methods = self._routes.get(scope["path"])
        if methods is None:
            raise Refusal(404, "no such path", known=list(self._routes))
        handler = methods.get(scope["method"])
        if handler is None:
            allow = ", ".join(methods)
            raise Refusal(405, f"method not allowed, use {allow}", headers=((b"allow", allow.encode()),))
        return handler

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._limiter.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _check_body(self, scope: Scope, receive: Receive) -> Response:
        body = await _read_body(receive)
        return await self._check(lambda: CheckRequest.from_json(body))

    async def _check_query(self, scope: Scope, receive: Receive) -> Response:
        return await self._check(lambda: CheckRequest.from_query(scope["query_string"]))

    async def _check(self, read: Callable[[], CheckRequest]) -> Response:
        try:
            request = read()
        except InvalidInput as error:
            raise Refusal(422, str(error), field=error.field) from error
        policy = self._policies.get(request.api)
        if policy is None:
            raise Refusal(404, f"unknown api {request.api!r}", known=list(self._policies))
        try:
            decision = await self._limiter.check(policy, request.key, request.cost)
        except Unavailable as error:
            self._metrics.count(policy.api, "error")
            raise self._unavailable() from error
        result = "peek" if request.cost == 0 else "allowed" if decision.allowed else "denied"
        self._metrics.count(policy.api, result)
        return Response(200, _json({"api": policy.api, "limit": policy.limit, **asdict(decision)}))

    async def _health(self, scope: Scope, receive: Receive) -> Response:
        try:
            await self._limiter.ping()
        except Unavailable as error:
            raise self._unavailable() from error
        return Response(200, b'{"status":"ok"}')

    async def _render_metrics(self, scope: Scope, receive: Receive) -> Response:
        return Response(200, self._metrics.render(), self._metrics.content_type)

    def _unavailable(self) -> Refusal:
        self._metrics.redis_errors.inc()
        return Refusal(
            503,
            "redis is unavailable, nothing is allowed until it answers",
            headers=((b"retry-after", str(UNAVAILABLE_RETRY_AFTER).encode()),),
            retry_after=UNAVAILABLE_RETRY_AFTER,
        )


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the request ended early")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        more = message.get("more_body", False)
    return bytes(body)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
