"""Every program of the intake is killed at random, again and again, while webhooks come in.

Whatever was confirmed has to have its effect, once, each order's events in sequence. `make faults WHAT=intake` does it
a hundred times (CYCLES), `make test` a few.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter

import asyncpg
import pytest
from intake_load import Senders, Sent
from intake_parts import Parts, revive, running
from waiting import wait_until

CYCLES = int(os.environ.get("CYCLES", "100" if os.environ.get("FULL") else "6"))
SEED = int(os.environ.get("SEED", "7"))
SENDERS = 12
SETTLED_SECONDS = 120
# What is killed, and how often of ten times.
VICTIMS = ("handler", "handler", "handler", "postgres", "postgres", "redis", "consumer", "consumer")


class Where:
    """Where the handler listens; looked at ten times a second at most."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._looked = parts, 0.0
        self._found: tuple[str, int] | None = None

    def __call__(self) -> tuple[str, int] | None:
        if time.monotonic() - self._looked > 0.1:
            self._looked, self._found = time.monotonic(), self._parts.parts["handler"].address()
        return self._found


async def havoc(parts: Parts, senders: Senders, chance: random.Random) -> Counter[str]:
    """Kill and start CYCLES times, sometimes two at once; what was killed how often."""
    killed: Counter[str] = Counter()
    for _ in range(CYCLES):
        await asyncio.sleep(chance.uniform(0.05, 1.0))
        victims = {chance.choice(VICTIMS) for _ in range(2 if chance.random() < 0.2 else 1)}
        for name in victims:
            await asyncio.to_thread(parts.parts[name].kill)
            killed[name] += 1
        await asyncio.sleep(chance.uniform(0, 0.5))
        # All at once: none may need another one to start.
        await asyncio.gather(*(asyncio.to_thread(revive, parts.parts[name]) for name in victims))
    await asyncio.sleep(1)
    senders.stopped = True
    return killed


async def trouble(parts: Parts) -> tuple[Sent, Counter[str]]:
    senders = Senders(Where(parts), SENDERS, SEED)
    running_senders = asyncio.create_task(senders.run())
    killed = await havoc(parts, senders, random.Random(SEED))  # noqa: S311
    await running_senders
    return senders.sent, killed


def rows(parts: Parts, query: str) -> list[asyncpg.Record]:
    async def ask() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(parts.dsn(), server_settings={"shop.store": "*"}, timeout=5)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    return asyncio.run(ask())


def waiting(parts: Parts) -> int:
    try:
        return int(rows(parts, "SELECT count(*) FROM outbox WHERE state = 'pending'")[0][0])
    except (OSError, asyncpg.PostgresError):
        return -1


def test_what_was_confirmed_has_its_effect_once_whoever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, intake_table: list[str]
) -> None:
    with running(tmp_path_factory.mktemp("intake"), weak=0.03) as parts:
        sent, killed = asyncio.run(trouble(parts))
        wait_until(lambda: waiting(parts) == 0, SETTLED_SECONDS, "everything was handed over")
        effects = rows(parts, "SELECT key, event, order_key FROM effects ORDER BY place")
        inbox = rows(parts, "SELECT id, endpoint, event_id FROM inbox")
        handed = rows(parts, "SELECT state, count(*) AS number, sum(attempts) AS attempts FROM outbox GROUP BY 1")
    keys = [row["key"] for row in effects]
    in_inbox = Counter(f"{row['endpoint']}:{row['event_id']}" for row in inbox)
    lost = sent.keys - set(keys)
    place = {key: number for number, key in enumerate(keys)}
    shuffled = [order for order, mine in sent.confirmed.items() if mine != sorted(mine, key=lambda key: place[key])]
    attempts = sum(row["attempts"] for row in handed)
    intake_table += [
        f"{sum(killed.values())} kills in {CYCLES} cycles: {', '.join(f'{n} {k}' for n, k in killed.most_common())}",
        f"{sent.attempts} requests, {sent.unanswered} without an answer, {sent.repeated} sent again on purpose",
        f"{len(sent.keys)} events confirmed: {len(lost)} lost, {len(keys) - len(set(keys))} effects doubled, "
        f"{len(shuffled)} orders out of sequence",
        f"{len(inbox)} events stored (more than confirmed: the answer was lost), {attempts} attempts to hand them over",
    ]
    assert not lost
    assert not shuffled
    assert not sent.strange
    assert max(in_inbox.values()) == 1
    assert {row["state"] for row in handed} == {"done"}
    assert sum(killed.values()) >= CYCLES
    assert len(sent.keys) > CYCLES
