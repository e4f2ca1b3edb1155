"""Senders as they are: they sign, wait, send again what was not confirmed, and now and then what was."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from intake_calls import Call, custom, shopify, shopify_order

Where = Callable[[], tuple[str, int] | None]


@dataclass
class Sent:
    """What came of the events of one run: those confirmed by their keys, in sequence for each order."""

    confirmed: dict[str, list[str]] = field(default_factory=dict)
    attempts: int = 0
    unanswered: int = 0
    repeated: int = 0
    strange: list[str] = field(default_factory=list)

    @property
    def keys(self) -> set[str]:
        """The keys of all that was confirmed."""
        return {key for keys in self.confirmed.values() for key in keys}


class Senders:
    """Several at once, each with an order after the other, until told to stop."""

    def __init__(self, where: Where, count: int, seed: int) -> None:
        """``where`` the handler is now."""
        self._where, self._count = where, count
        self._random = random.Random(seed)  # noqa: S311
        self.sent = Sent()
        self.stopped = False

    async def run(self) -> None:
        """Send until ``stopped`` is set; what is not confirmed then was never promised."""
        async with httpx.AsyncClient(timeout=httpx.Timeout(6, connect=1), trust_env=False) as client:
            await asyncio.gather(*(self._one(client) for _ in range(self._count)))

    async def _one(self, client: httpx.AsyncClient) -> None:
        while not self.stopped:
            if self._random.random() < 0.2:
                number = secrets.randbelow(10**12) + 1
                call = shopify(shopify_order(number))
                await self._confirm(client, str(number), f"shopify:{call.headers['x-shopify-webhook-id']}", call)
                continue
            order = f"L-{secrets.token_hex(6)}"
            for kind in ("order", "order.paid", "order.shipped")[: self._random.randint(1, 3)]:
                call = custom({"type": kind, "order_id": order})
                # The next event of an order happens when the one before is known: a sender waits for that.
                if not await self._confirm(client, order, f"custom:{call.headers['webhook-id']}", call):
                    break

    async def _confirm(self, client: httpx.AsyncClient, order: str, key: str, call: Call) -> bool:
        """Send until it is confirmed; False where that did not come about in time."""
        for _ in range(60):
            if self.stopped:
                return False
            if await self._send(client, call) != 200:
                await asyncio.sleep(self._random.uniform(0.05, 0.4))
                continue
            self.sent.confirmed.setdefault(order, []).append(key)
            # A provider that has not heard the answer, or that is confused, sends it once more.
            if self._random.random() < 0.1:
                self.sent.repeated += 1
                await self._send(client, call)
            await asyncio.sleep(self._random.uniform(0, 0.03))
            return True
        return False

    async def _send(self, client: httpx.AsyncClient, call: Call) -> int:
        self.sent.attempts += 1
        address = self._where()
        if address is None:
            self.sent.unanswered += 1
            return 0
        url = f"http://{address[0]}:{address[1]}/webhooks/{call.endpoint}"
        headers = {"content-type": "application/json"} | call.headers
        try:
            answer = await client.post(url, content=call.body, headers=headers)
        except httpx.HTTPError:
            self.sent.unanswered += 1
            return 0
        if answer.status_code not in (200, 503):
            self.sent.strange.append(f"{answer.status_code} {answer.text[:200]}")
        return answer.status_code
