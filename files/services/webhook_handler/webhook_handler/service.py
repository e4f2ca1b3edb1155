"""What runs beside the requests: the inbox, its delivery, and the keeping of both."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import zlib
from collections.abc import Coroutine
from typing import Any

import httpx

from .config import Config
from .consumers import client
from .database import Arrival, Database
from .delivery import Delivery
from .errors import Unavailable
from .group_commit import GroupCommit
from .limits import Limits
from .metrics import Metrics
from .providers import paypal
from .wake import Wake

_log = logging.getLogger("webhook_handler")
_COUNT_EVERY, _FORGET_EVERY = 10.0, 3600.0
_LARGEST_CERTIFICATE = 64 * 1024
# While one waits for the disk, the other one prepares.
_WRITERS = 2


class Service:
    """Everything but HTTP."""

    def __init__(self, config: Config) -> None:
        self._settings = config.settings
        self.metrics = Metrics(config.settings.endpoints, config.settings.consumers)
        self.database = Database(config.postgres)
        self.limits = Limits(config.limiter_url, config.limiter_token)
        self._wake = Wake(config)
        self._delivery = Delivery(config, self.database, self._wake, self.metrics)
        self._inboxes: list[GroupCommit[Arrival, int | None]] = [
            GroupCommit(
                self.database.store, largest=200, waiting=2000, seconds=6, size=lambda arrival: len(arrival.body)
            )
            for _ in range(_WRITERS)
        ]
        self._waiting = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._certificates = client(timeout=3)

    def start(self) -> None:
        """Start what runs beside the requests."""
        paypal.certificates = paypal.Certificates(self._fetch)
        beside = [self._delivery.run(), self._wake.run(self._delivery.wake), self._keep()]
        for task in (*(inbox.run() for inbox in self._inboxes), *beside):
            self._tasks.append(asyncio.create_task(_alive(task)))

    async def stop(self) -> None:
        """Stop it; what is under way is handed over again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._delivery.close()
        await self._wake.close()
        await self.limits.close()
        await self._certificates.aclose()
        await self.database.close()

    async def store(self, arrival: Arrival) -> int | None:
        """Store an event; its number, None if it was there already. Raises Unavailable."""
        if self._waiting >= self._settings.keeping.waiting_events:
            raise Unavailable("full", "too much waits to be handed over", 60)
        # What belongs to one order goes the same way, or it might overtake itself.
        way = zlib.crc32((arrival.order_key or arrival.event_id).encode()) % _WRITERS
        number = await self._inboxes[way].put(arrival)
        if number is not None and arrival.consumers:
            self._waiting += len(arrival.consumers)
            self._delivery.wake()
            self._wake.say()
        return number

    async def replay(self, number: int | None) -> list[tuple[int, str]]:
        """Hand an event over once more, or all that was given up (None)."""
        routed: list[str] = []
        if number is not None and (event := await self.database.event(number)):
            routed = self._settings.consumers_of(event["endpoint"], event["topic"])
        done = await self.database.replay(number, routed)
        self._delivery.wake()
        self._wake.say()
        return done

    async def ping(self) -> None:
        """Raises Unavailable where the database does not answer."""
        async with self.database.connection() as connection:
            await connection.execute("SELECT 1")

    async def _keep(self) -> None:
        """Declare the stores, count what waits, remove what is old."""
        declared, forget_at = False, 0.0
        clock = asyncio.get_running_loop().time
        while True:
            try:
                if not declared:
                    stores = {endpoint.store for endpoint in self._settings.endpoints.values()}
                    await self.database.declare_stores(sorted(stores))
                    declared = True
                counted = await self.database.waiting()
                self._waiting = sum(number for (_, state), number in counted.items() if state == "pending")
                for consumer in self._settings.consumers:
                    for state in ("pending", "dead"):
                        self.metrics.waiting.labels(consumer, state).set(counted.get((consumer, state), 0))
                if clock() >= forget_at:
                    abandoned = await self.database.abandon(list(self._settings.consumers))
                    forgotten = await self.database.forget(self._settings.keeping)
                    if abandoned or any(forgotten.values()):
                        _log.info("given up for want of a consumer: %d; removed: %s", abandoned, forgotten)
                    forget_at = clock() + _FORGET_EVERY
            except Unavailable:
                await asyncio.sleep(1)
                continue
            await asyncio.sleep(_COUNT_EVERY)

    async def _fetch(self, url: str) -> bytes:
        """A certificate of PayPal's; ``url`` was looked at. Raises Unavailable."""
        try:
            async with asyncio.timeout(5), self._certificates.stream("GET", url) as answer:
                answer.raise_for_status()
                content = b""
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > _LARGEST_CERTIFICATE:
                        raise Unavailable("certificate", "what lies at paypal-cert-url is no certificate")
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise Unavailable("certificate", f"PayPal's certificate cannot be fetched: {error}") from error
        return content


async def _alive(task: Coroutine[Any, Any, None]) -> None:
    """Without one of them the service would take in and not hand on: then it rather ends, and is started again."""
    try:
        await task
    except asyncio.CancelledError:
        raise
    except BaseException:
        _log.critical("stopped by a mistake of its own", exc_info=True)
        # sys.exit() would only end this task.
        os.kill(os.getpid(), signal.SIGTERM)
