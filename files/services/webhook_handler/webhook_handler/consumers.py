"""Who is handed events: an HTTP address (n8n's webhooks) or a Celery task."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

import certifi
import httpx

from .config import Config, Consumer
from .errors import Refused
from .providers import PROVIDERS
from .wake import Wake

# The consumer says that the event itself is wrong: the next time it would say so again.
_REFUSALS = (400, 413, 415, 422)
_LONGEST_ERROR = 300


@dataclass(frozen=True, slots=True)
class Handed:
    """How it went: ``done``, ``later`` (perhaps not before ``retry_after``), ``away`` (nobody there), or dead."""

    outcome: str
    error: str | None = None
    retry_after: float = 0


def idempotency_key(event: Mapping[str, Any]) -> str:
    """The same for each attempt and each replay, also after a restore: the sender's own number."""
    return f"{event['endpoint']}:{event['event_id']}"


def payload(event: Mapping[str, Any], form: str) -> bytes:
    """What is handed over. Raises Refused where no order can be read from the event."""
    body = bytes(event["body"])
    read = getattr(PROVIDERS[event["endpoint"].partition("/")[0]], "order", None)
    if form == "raw" or read is None:
        return body
    return json.dumps(read(json.loads(body)), separators=(",", ":")).encode()


@cache
def _authorities() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certifi.where())


def client(**options: Any) -> httpx.AsyncClient:
    """An HTTP client, never by way of a proxy that the environment names."""
    # Each would load all authorities for itself, which takes a while and some MiB.
    return httpx.AsyncClient(trust_env=False, verify=_authorities(), **options)


class Http:
    """Hands events over by POST; who answers 2xx has taken them."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._client = client(
            timeout=consumer.timeout_seconds,
            limits=httpx.Limits(max_connections=consumer.concurrency, max_keepalive_connections=consumer.concurrency),
        )

    async def hand(self, event: Mapping[str, Any]) -> Handed:
        """Hand one event over."""
        try:
            content = payload(event, self._consumer.format)
        except Refused as error:
            return Handed("unreadable", str(error))
        try:
            # The timeout of httpx is for each read; somebody who sends a byte a second must not hold a place for ever.
            async with asyncio.timeout(self._consumer.timeout_seconds):
                async with self._client.stream(
                    "POST", self._consumer.url, content=content, headers=self._headers(event)
                ) as answer:
                    text = await _beginning(answer)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return Handed("away", f"{type(error).__name__}: {error}")
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            return Handed("later", f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])
        if answer.is_success:
            return Handed("done")
        said = f"{answer.status_code} {text}"[:_LONGEST_ERROR]
        if answer.status_code in _REFUSALS:
            return Handed("refused", said)
        if answer.status_code in (502, 503, 504):
            return Handed("away", said, _seconds(answer.headers.get("retry-after", "")))
        return Handed("later", said, _seconds(answer.headers.get("retry-after", "")))

    def _headers(self, event: Mapping[str, Any]) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "idempotency-key": idempotency_key(event),
            "x-webhook-event": str(event["inbox_id"]),
            "x-webhook-endpoint": event["endpoint"],
            "x-webhook-topic": event["topic"],
            "x-webhook-store": event["store"],
            "x-webhook-order": event["order_key"],
            "x-webhook-received": event["received_at"].isoformat(),
            "x-webhook-attempt": str(event["attempts"]),
            "x-webhook-replay": str(event["replays"]),
        }
        if event["occurred_at"]:
            headers["x-webhook-occurred"] = event["occurred_at"].isoformat()
        if self._consumer.token:
            headers["x-webhook-token"] = self._consumer.token
        return headers

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class Celery:
    """Puts events into a queue of Celery's; the number of the task is the idempotency key."""

    def __init__(self, consumer: Consumer, config: Config, wake: Wake) -> None:
        # Here, because it costs memory that a shop without such a consumer does not need.
        from celery import Celery as App

        login = f"{quote(config.redis_user)}:{quote(config.redis_password, safe='')}"
        self._consumer, self._wake = consumer, wake
        self._app = App(
            "webhook_handler",
            broker=consumer.url or f"redis://{login}@{config.redis_host}:{config.redis_port}/0",
            set_as_current=False,
        )
        seconds = consumer.timeout_seconds
        self._app.conf.update(
            task_ignore_result=True,
            task_serializer="json",
            broker_transport_options={"socket_timeout": seconds, "socket_connect_timeout": min(seconds, 3)},
        )

    async def hand(self, event: Mapping[str, Any]) -> Handed:
        """Hand one event over, and see it on the disk of Redis."""
        try:
            content = payload(event, self._consumer.format).decode()
        except Refused as error:
            return Handed("unreadable", str(error))
        about = {name: event[name] for name in ("inbox_id", "endpoint", "event_id", "topic", "order_key", "store")}
        try:
            await asyncio.to_thread(
                self._app.send_task,
                self._consumer.task,
                kwargs={**about, "received_at": event["received_at"].isoformat(), "body": content},
                task_id=idempotency_key(event),
                queue=self._consumer.queue,
                retry=False,
                ignore_result=True,
            )
            await self._wake.flushed()
        # Of kombu, redis and the system, each with a base of its own.
        except Exception as error:
            return Handed("away", f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])
        return Handed("done")

    async def close(self) -> None:
        """Close its connections."""
        await asyncio.to_thread(self._app.close)


async def _beginning(answer: httpx.Response) -> str:
    """The first words of an answer; the rest, however much it is, is left out."""
    text = b""
    if not answer.is_success:
        async for piece in answer.aiter_bytes():
            text += piece
            if len(text) >= _LONGEST_ERROR:
                break
    return text[:_LONGEST_ERROR].decode(errors="replace").replace("\0", "")


def _seconds(text: str) -> float:
    return min(float(text), 3600.0) if text.isascii() and text.isdigit() else 0
