"""Hands over what waits in the outbox: at least once, each order's events in sequence, with patience."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from .config import Config, Consumer
from .consumers import Celery, Handed, Http
from .database import Database, Outcome
from .errors import Unavailable
from .group_commit import GroupCommit
from .metrics import Metrics
from .wake import Wake

_log = logging.getLogger("webhook_handler")
_LOOK_EVERY = 1.0
_FIRST_DELAY, _LONGEST_DELAY, _LONGEST_PAUSE = 1.0, 900.0, 30.0
# A claim outlives the consumer's timeout by this much.
_MARGIN = 10.0
# Of consumers.Handed to the reasons in shop.outbox.
_REASONS = {"refused": "refused", "unreadable": "unreadable"}


def backoff(attempts: int, longest: float = _LONGEST_DELAY) -> float:
    """Seconds to wait after ``attempts`` failures: doubling, and spread, so that not all come back at once."""
    return min(longest, _FIRST_DELAY * 2.0 ** min(attempts - 1, 20)) * random.uniform(0.5, 1.0)  # noqa: S311


class Delivery:
    """Hands events to all consumers."""

    def __init__(self, config: Config, database: Database, wake: Wake, metrics: Metrics) -> None:
        self._settings, self._database, self._metrics = config.settings, database, metrics
        self._awake = {name: asyncio.Event() for name in self._settings.consumers}
        self._senders: dict[str, Http | Celery] = {
            name: Http(consumer) if consumer.kind == "http" else Celery(consumer, config, wake)
            for name, consumer in self._settings.consumers.items()
        }
        self._settle: GroupCommit[Outcome, None] = GroupCommit(database.settle, largest=200, waiting=10_000, seconds=8)

    def wake(self) -> None:
        """Look at once what there is to hand over."""
        for event in self._awake.values():
            event.set()

    async def run(self) -> None:
        """Hand over until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._settle.run())
            for consumer in self._settings.consumers.values():
                group.create_task(self._serve(consumer))

    async def close(self) -> None:
        """Close all connections."""
        for sender in self._senders.values():
            await sender.close()

    async def _serve(self, consumer: Consumer) -> None:
        """Keep up to ``concurrency`` events of one consumer under way."""
        awake, under_way = self._awake[consumer.name], set[asyncio.Task[str]]()
        misses = 0

        def landed(task: asyncio.Task[str]) -> None:
            nonlocal misses
            under_way.discard(task)
            awake.set()
            if not task.cancelled() and not task.exception():
                misses = misses + 1 if task.result() == "away" else 0

        while True:
            awake.clear()
            # Where nobody is there, one event finds out when that has changed; the others do not use up their patience.
            free = consumer.concurrency - len(under_way) if not misses else 1 - len(under_way)
            claimed: list[Mapping[str, Any]] = []
            if free > 0:
                try:
                    claimed = await self._database.claim(consumer.name, free, consumer.timeout_seconds + _MARGIN)
                except Unavailable:
                    await asyncio.sleep(_LOOK_EVERY)
                    continue
            for event in claimed:
                task = asyncio.create_task(self._hand(consumer, event))
                under_way.add(task)
                task.add_done_callback(landed)
            if misses and not under_way:
                await asyncio.sleep(backoff(misses, _LONGEST_PAUSE))
                continue
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await awake.wait()
            except TimeoutError:
                pass

    async def _hand(self, consumer: Consumer, event: Mapping[str, Any]) -> str:
        handed = await self._senders[consumer.name].hand(event)
        self._metrics.handed.labels(consumer.name, handed.outcome).inc()
        outcome = self._judge(handed, event)
        if outcome.state == "dead":
            _log.error(
                "event %d (%s, %s) was given up for %s: %s: %s",
                event["inbox_id"],
                event["endpoint"],
                event["topic"],
                consumer.name,
                outcome.reason,
                outcome.error,
            )
        try:
            await self._settle.put(outcome)
        except (Unavailable, TimeoutError):
            # It stays claimed until its time is over, and is handed over once more: that is what the key is for.
            _log.warning("event %d was handed to %s, and it could not be noted", event["inbox_id"], consumer.name)
        return handed.outcome

    def _judge(self, handed: Handed, event: Mapping[str, Any]) -> Outcome:
        number, attempts = event["id"], event["attempts"]
        if handed.outcome == "done":
            return Outcome(number, attempts, "done")
        if reason := _REASONS.get(handed.outcome):
            return Outcome(number, attempts, "dead", reason, handed.error)
        if event["age"] > self._settings.keeping.give_up_hours * 3600:
            return Outcome(number, attempts, "dead", "expired", handed.error)
        delay = max(backoff(attempts), handed.retry_after)
        return Outcome(number, attempts, "pending", None, handed.error, delay)
