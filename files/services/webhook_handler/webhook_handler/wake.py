"""A stream in Redis by which one process says to the others that there is something to hand over.

It carries no event: what it loses is found a second later in the outbox.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from .config import Config

STREAM = "webhook:wake"
_LONGEST = 100
_log = logging.getLogger("webhook_handler")


class Wake:
    """One process's end of the stream."""

    def __init__(self, config: Config) -> None:
        self._name = secrets.token_hex(8)
        self._said = asyncio.Event()
        self._redis = (
            redis.asyncio.Redis(
                host=config.redis_host,
                port=config.redis_port,
                username=config.redis_user,
                password=config.redis_password,
                socket_connect_timeout=1,
                socket_timeout=8,
                decode_responses=True,
            )
            if config.redis_host
            else None
        )

    def say(self) -> None:
        """Wake the others soon; many at once become one."""
        self._said.set()

    async def tell(self) -> None:
        """Wake the others now. Raises RedisError or OSError."""
        if self._redis:
            await self._redis.xadd(STREAM, {"by": self._name}, maxlen=_LONGEST, approximate=True)

    async def flushed(self) -> None:
        """Return when the disk of Redis has all that was written until now. Raises RedisError or OSError."""
        if not self._redis:
            return
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xadd(STREAM, {"by": self._name}, maxlen=_LONGEST, approximate=True)
            pipeline.execute_command("WAITAOF", 1, 0, 3000)
            added, flushed = await pipeline.execute(raise_on_error=False)
        if isinstance(added, Exception):
            raise added
        # A server that keeps no log, or knows no such command, is somebody else's choice.
        if isinstance(flushed, Exception) and not isinstance(flushed, ResponseError):
            raise flushed
        if isinstance(flushed, list) and flushed[0] < 1:
            raise RedisError("the log of Redis is not on the disk yet")

    async def run(self, woken: Callable[[], None]) -> None:
        """Say what there is to say and call ``woken`` when another has, until cancelled."""
        if self._redis:
            await asyncio.gather(self._speak(), self._listen(woken))

    async def close(self) -> None:
        """Close its connections."""
        if self._redis:
            await self._redis.aclose()

    async def _speak(self) -> None:
        while True:
            await self._said.wait()
            self._said.clear()
            try:
                await self.tell()
            except (RedisError, OSError) as error:
                _log.warning("Redis: %s", error)
                await asyncio.sleep(2)
            await asyncio.sleep(0.05)

    async def _listen(self, woken: Callable[[], None]) -> None:
        assert self._redis  # noqa: S101  # run() has looked
        last = "$"
        while True:
            try:
                answer: Any = await self._redis.xread({STREAM: last}, count=_LONGEST, block=5000)
            except (RedisError, OSError):
                last = "$"
                await asyncio.sleep(2)
                continue
            for _, entries in answer or []:
                last = entries[-1][0]
                if any(fields.get("by") != self._name for _, fields in entries):
                    woken()
