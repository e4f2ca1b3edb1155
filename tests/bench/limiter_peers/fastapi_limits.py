"""What one would write first: FastAPI and the library `limits`, exact moving window. ``uvicorn fastapi_limits:app``."""

from __future__ import annotations

import os
import time
from typing import Any

from fastapi import FastAPI
from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from pydantic import BaseModel

app = FastAPI()
limiter = MovingWindowRateLimiter(RedisStorage(os.environ["PEER_REDIS"], implementation="redispy"))
LIMIT = RateLimitItemPerSecond(180, 1)


class Check(BaseModel):
    """One check."""

    api: str
    key: str = ""
    cost: int = 1


@app.post("/v1/check")
async def check(asked: Check) -> dict[str, Any]:
    """Take, and say what is left."""
    allowed = await limiter.hit(LIMIT, asked.api, asked.key, cost=asked.cost)
    stats = await limiter.get_window_stats(LIMIT, asked.api, asked.key)
    left = stats.reset_time - time.time()
    return {"api": asked.api, "allowed": allowed, "remaining": stats.remaining, "reset_in": left}
