"""One transaction for all who wait for one: as many are served by a flush of the disk as have come during the last."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from .errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """``put`` returns when the item's transaction is committed, with its own result."""

    def __init__(
        self,
        commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        largest: int,
        waiting: int,
        seconds: float,
        size: Callable[[T], int] = lambda item: 0,
        largest_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        """``commit`` takes at most ``largest`` items (of ``largest_bytes`` by ``size``) for so many ``seconds``.

        ``waiting`` may wait for the next one.
        """
        self._commit, self._seconds = commit, seconds
        self._largest, self._waiting = largest, waiting
        self._size, self._largest_bytes = size, largest_bytes
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._filled = asyncio.Event()

    async def put(self, item: T) -> R:
        """Hand in one item. Raises Unavailable when too many wait, or what ``commit`` raised."""
        if len(self._queue) >= self._waiting:
            raise Unavailable("busy", "too many webhooks at once")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        self._filled.set()
        return await future

    async def run(self) -> None:
        """Commit what is handed in, until cancelled."""
        while True:
            await self._filled.wait()
            batch = self._take()
            if not batch:
                self._filled.clear()
                continue
            try:
                async with asyncio.timeout(self._seconds):
                    results = await self._commit([item for item, _ in batch])
            except asyncio.CancelledError:
                for _, future in batch:
                    future.cancel()
                raise
            except Exception as error:  # whatever it was, those who wait have to know
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        taken = 0
        while self._queue and len(batch) < self._largest and (not batch or taken < self._largest_bytes):
            item, future = self._queue.popleft()
            # Nobody waits for it any more: it was cut off before it was begun.
            if not future.done():
                batch.append((item, future))
                taken += self._size(item)
        return batch
