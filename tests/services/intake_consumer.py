"""A consumer for the tests, a process of its own: has each effect once, told by its key, as a workflow of n8n's does.

Its effects lie in the table ``effects``, whatever it was asked in ``asked``. The topic of an event says how it is to be
treated: ``answer.<status>`` always so, ``second.<status>`` at the first attempt, ``slow.<seconds>``
takes so long at the first.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

import asyncpg
import uvicorn

_TABLES = """
CREATE TABLE IF NOT EXISTS effects (
    place bigint GENERATED ALWAYS AS IDENTITY, key text UNIQUE, event bigint, order_key text, body bytea, headers text);
CREATE TABLE IF NOT EXISTS asked (key text, at timestamptz DEFAULT clock_timestamp(), headers text);
"""
_EFFECT = """
INSERT INTO effects (key, event, order_key, body, headers) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO NOTHING
"""
_TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class App:
    """POST /consume; of all requests the share WEAK goes wrong before the effect, and the same share after it."""

    def __init__(self) -> None:
        self._pool: asyncpg.Pool | None = None
        self._weak = float(os.environ.get("WEAK", "0"))

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        try:
            status = await self._answer(headers, body)
        except _TROUBLE:
            status = 500
        length = [(b"content-length", b"0"), (b"retry-after", b"2")]
        await send({"type": "http.response.start", "status": status, "headers": length})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, headers: dict[str, str], body: bytes) -> int:
        wish, _, number = headers["x-webhook-topic"].partition(".")
        first = headers["x-webhook-attempt"] == "1"
        pool = await self._database()
        key = headers["idempotency-key"]
        async with pool.acquire(timeout=3) as connection:
            await connection.execute("INSERT INTO asked (key, headers) VALUES ($1, $2)", key, json.dumps(headers))
        if wish == "answer" or (wish == "second" and first):
            return int(number)
        if wish == "slow" and first:
            await asyncio.sleep(float(number))
        if random.random() < self._weak:  # noqa: S311
            return 500
        async with pool.acquire(timeout=3) as connection:
            event = int(headers["x-webhook-event"])
            await connection.execute(_EFFECT, key, event, headers["x-webhook-order"], body, json.dumps(headers))
        return 500 if random.random() < self._weak else 200  # noqa: S311

    async def _database(self) -> asyncpg.Pool:
        if self._pool is None:
            pool = asyncpg.create_pool(os.environ["EFFECTS"], min_size=0, max_size=8, timeout=2, command_timeout=5)
            await pool
            async with pool.acquire(timeout=3) as connection:
                await connection.execute(_TABLES)
            self._pool = pool
        return self._pool


if __name__ == "__main__":
    uvicorn.run(App(), host=os.environ["HOST"], port=int(os.environ["PORT"]), lifespan="off", log_level="warning")
