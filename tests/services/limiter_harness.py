"""The limiter's core in this process, against a real Redis, on a clock of our own making."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from local_redis import LocalRedis
from rate_limiter import limiter as core
from rate_limiter.config import Config
from rate_limiter.limiter import Limiter
from rate_limiter.link import Link
from rate_limiter.policies import Policy, read_policies

T = TypeVar("T")
# 2026-11-02 12:00 UTC
BASE = 1_793_620_800_000_000
SECOND = 1_000_000


def config_for(redis: LocalRedis, *, instances: int = 1, timeout: float = 5.0) -> Config:
    """Settings that lead to this Redis; a busy computer is given time unless a test is about that."""
    return Config(
        "127.0.0.1", redis.port, "rate_limiter", redis.limiter_password, timeout, instances, "", 0, Path(), None
    )


def policy(**body: Any) -> Policy:
    """One policy as it stands in the file."""
    return read_policies({"policies": {"api": body}})["api"]


async def connected(limiter: Limiter) -> None:
    """Return once it has reached Redis."""
    for _ in range(1000):
        if limiter.link.up:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the limiter has not found Redis within 10 s")


@contextlib.asynccontextmanager
async def running(redis: LocalRedis, **options: Any) -> AsyncIterator[Limiter]:
    """A limiter that has reached Redis."""
    limiter = Limiter(config_for(redis, **options))
    limiter.start()
    try:
        await connected(limiter)
        yield limiter
    finally:
        await limiter.close()


class Bench:
    """Two limiters on one Redis whose scripts read their time from a key, and our own clock beside it.

    Both clocks advance together; `jump` sets that of Redis alone.
    """

    def __init__(self, redis: LocalRedis, monkeypatch: pytest.MonkeyPatch, *, instances: int) -> None:
        self.runner = asyncio.Runner()
        self.clock = BASE
        self.ours = 1000.0
        monkeypatch.setattr(core, "monotonic", lambda: self.ours)
        script = Link.script

        def on_our_clock(link: Link, *parts: str) -> Any:
            made = script(link, *parts)
            made.use(made.text.replace("call('TIME')", "call('LRANGE', 'rl:clock', 0, 1)"))
            return made

        monkeypatch.setattr(Link, "script", on_our_clock)
        self.workers = [Limiter(config_for(redis, instances=instances)) for _ in range(instances)]
        self.run(self._start())

    async def _start(self) -> None:
        for worker in self.workers:
            worker.start()
            await connected(worker)
        await self.set_clock()

    async def set_clock(self) -> None:
        """Have the scripts see our clock."""
        link = self.workers[0].link
        await link.call("DEL", "rl:clock")
        await link.call("RPUSH", "rl:clock", self.clock // SECOND, self.clock % SECOND)

    async def pass_time(self, microseconds: int, jump: int = 0) -> None:
        """Let time pass; set the clock of Redis by ``jump`` on top."""
        self.ours += microseconds / SECOND
        self.clock += microseconds + jump
        await self.set_clock()

    def run(self, work: Awaitable[T]) -> T:
        """Run to the end."""

        async def whole() -> T:
            return await work

        return self.runner.run(whole())

    def close(self) -> None:
        """Disconnect."""
        for worker in self.workers:
            self.run(worker.close())
        self.runner.close()
