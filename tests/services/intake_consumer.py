"""A consumer for the tests, a process of its own: has each effect once, told by its key, as a workflow of n8n's does.

What it has done lies in the table ``effects``. Now and then it fails, or does its work and gives no answer.
"""

from __future__ import annotations

import os
import random
from typing import Any

import asyncpg
import uvicorn

_TABLE = """
CREATE TABLE IF NOT EXISTS effects (
    place bigint GENERATED ALWAYS AS IDENTITY, key text UNIQUE, event bigint, order_key text, attempt int)
"""
# A number is given also to what is not inserted: `place` has gaps, and keeps the sequence.
_EFFECT = "INSERT INTO effects (key, event, order_key, attempt) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"


class App:
    """POST /consume; what the environment says (WEAK, a share of all requests) goes wrong."""

    def __init__(self) -> None:
        self._pool: asyncpg.Pool | None = None
        self._weak = float(os.environ.get("WEAK", "0"))

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status = 500
        try:
            if random.random() >= self._weak:  # noqa: S311
                await self._act(headers)
                status = 500 if random.random() < self._weak else 200  # noqa: S311
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            pass
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _act(self, headers: dict[str, str]) -> None:
        if self._pool is None:
            pool = asyncpg.create_pool(os.environ["EFFECTS"], min_size=0, max_size=8, timeout=2, command_timeout=5)
            await pool
            async with pool.acquire(timeout=3) as connection:
                await connection.execute(_TABLE)
            self._pool = pool
        async with self._pool.acquire(timeout=3) as connection:
            await connection.execute(
                _EFFECT,
                headers["idempotency-key"],
                int(headers["x-webhook-event"]),
                headers["x-webhook-order"],
                int(headers["x-webhook-attempt"]),
            )


if __name__ == "__main__":
    uvicorn.run(App(), host=os.environ["HOST"], port=int(os.environ["PORT"]), lifespan="off", log_level="warning")
