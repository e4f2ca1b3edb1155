"""The limiter itself: one atomic script in Redis per check. Knows nothing of HTTP."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .config import Config
from .policies import Policy

_SCRIPT = Path(__file__).with_name("sliding_log.lua").read_text(encoding="utf-8")
_CONNECTIONS = 32
# How long a check may queue for a connection: a burst of some hundred callers, with room on a Pi.
_QUEUE_SECONDS = 0.5
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Unavailable(Exception):
    """Redis did not answer, or refused. Nothing may be read as allowed; units may have been taken."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Answer to one check.

    ``remaining``: units admissible now. ``reset_in``: seconds until the quota is full again.
    ``retry_after``: seconds until this cost fits; 0 if it did, None if it is above the limit and never will.
    """

    allowed: bool
    remaining: int
    reset_in: float
    retry_after: float | None


class Limiter:
    """Checks against the logs in one Redis. Connects on first use, and again after each failure."""

    def __init__(self, config: Config) -> None:
        """Prepare the connections that ``config`` describes; none is opened yet."""
        pool = BlockingConnectionPool(
            max_connections=_CONNECTIONS,
            timeout=_QUEUE_SECONDS,
            host=config.redis_host,
            port=config.redis_port,
            username=config.redis_user,
            password=config.redis_password,
            socket_timeout=config.redis_timeout,
            socket_connect_timeout=config.redis_timeout,
            # A repeated script might count twice, and the caller is better served by a quick 503.
            retry=Retry(NoBackoff(), 0),
            # RESP2 without client info: a connection asks for nothing that the ACL does not allow.
            protocol=2,
            driver_info=None,
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(_SCRIPT)
        self._away = False

    async def check(self, policy: Policy, key: str = "", cost: int = 1) -> Decision:
        """Take ``cost`` (>= 0) units of ``policy`` for tenant ``key``, or nothing. Cost 0 only looks.

        Raises Unavailable.
        """
        arguments = [policy.limit, policy.window_seconds * 1_000_000, cost]
        allowed, remaining, reset_in, retry_after = await self._ask(
            self._script(keys=[f"rl:{policy.api}:{key}"], args=arguments)
        )
        return Decision(
            allowed=allowed == 1,
            remaining=remaining,
            reset_in=_seconds(reset_in),
            retry_after=None if retry_after < 0 else _seconds(retry_after),
        )

    async def ping(self) -> None:
        """Return once Redis answered. Raises Unavailable."""
        await self._ask(self._redis.ping())

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def _ask(self, answer: Awaitable[_T]) -> _T:
        """Await Redis; log once when it goes away and once when it is back, not once per check."""
        try:
            result = await answer
        except RedisError as error:
            if not self._away:
                _log.error("redis is unavailable, every check is refused: %s", error)
            self._away = True
            raise Unavailable(str(error)) from error
        if self._away:
            _log.warning("redis answers again")
        self._away = False
        return result


def _seconds(microseconds: int) -> float:
    """Whole milliseconds, rounded up: who waits that long has waited long enough."""
    return math.ceil(microseconds / 1000) / 1000
