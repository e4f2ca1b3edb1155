"""The rate limiter of the shop, asked for a stock of units at a time: most webhooks do not wait for an answer of it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

import httpx

from .consumers import client

_log = logging.getLogger("webhook_handler")
API = "webhooks"
_BLOCK = 50
_SECONDS = 0.1
# After no answer everything passes for so long: what proves itself is rather taken than turned away.
_OPEN = 2.0


@dataclass(slots=True)
class _Stock:
    units: int = 0
    denied_until: float = 0
    open_until: float = 0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Limits:
    """Units for each endpoint."""

    def __init__(self, url: str, token: str = "") -> None:
        """``url`` of the rate limiter; an empty one limits nothing. ``token`` is who it knows us by."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = client(base_url=url, timeout=_SECONDS, headers=headers) if url else None
        self._stocks: dict[str, _Stock] = {}

    async def wait_for(self, endpoint: str) -> float:
        """0 when a webhook of ``endpoint`` may come in now, else the seconds that it has to wait."""
        if self._client is None:
            return 0
        stock = self._stocks.setdefault(endpoint, _Stock())
        if stock.units <= 0:
            async with stock.asking:
                if stock.units <= 0:
                    await self._ask(endpoint, stock)
        now = time.monotonic()
        if stock.units > 0 or now < stock.open_until:
            stock.units = max(0, stock.units - 1)
            return 0
        return max(stock.denied_until - now, 0.1)

    async def close(self) -> None:
        """Close its connections."""
        if self._client:
            await self._client.aclose()

    async def _ask(self, endpoint: str, stock: _Stock) -> None:
        now = time.monotonic()
        if now < stock.denied_until or now < stock.open_until:
            return
        try:
            # What is left may be less than a whole block.
            for units in (_BLOCK, 1):
                allowed, retry_after = await self._check(endpoint, units)
                if allowed:
                    stock.units = units
                    return
            stock.denied_until = time.monotonic() + retry_after
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("rate limiter: %s: %s; everything passes for %g s", type(error).__name__, error, _OPEN)
            stock.open_until = time.monotonic() + _OPEN

    async def _check(self, endpoint: str, units: int) -> tuple[bool, float]:
        assert self._client  # noqa: S101  # wait_for() has looked
        answer = await self._client.post("/api/rate-limit/check", json={"api": API, "key": endpoint, "cost": units})
        said = answer.raise_for_status().json()
        # null: more than the limit itself, so that it will never fit.
        return bool(said["allowed"]), min(float(said["retry_after"] or 1), 60.0)
