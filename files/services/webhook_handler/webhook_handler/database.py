"""PostgreSQL: what came in (shop.inbox) and what is to be handed on (shop.outbox)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from .config import Keeping
from .errors import Unavailable

_log = logging.getLogger("webhook_handler")

# One statement, one transaction: an event and what follows from it are there together or not at all.
_STORE = """
WITH incoming AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bytea[],
        $8::bytea[], $9::text[]) WITH ORDINALITY
        AS event (store, endpoint, event_id, topic, order_key, occurred_at, fingerprint, body, consumers, place)
), stored AS (
    INSERT INTO shop.inbox (store_id, endpoint, event_id, topic, order_key, occurred_at, fingerprint, body)
    SELECT stores.id, endpoint, event_id, topic, order_key, occurred_at, fingerprint, body
    -- LEFT: an unknown store is an error, not a row less.
    FROM incoming LEFT JOIN shop.stores ON stores.name = incoming.store ORDER BY place
    ON CONFLICT DO NOTHING
    RETURNING id, store_id, endpoint, event_id, order_key
), handed AS (
    INSERT INTO shop.outbox (store_id, inbox_id, consumer, order_key)
    SELECT stored.store_id, stored.id, consumer, stored.order_key
    FROM stored
    JOIN (SELECT DISTINCT ON (endpoint, event_id) * FROM incoming ORDER BY endpoint, event_id, place) AS event
        USING (endpoint, event_id)
    CROSS JOIN unnest(string_to_array(event.consumers, ',')) AS consumer
    ORDER BY stored.id
)
SELECT id, endpoint, event_id FROM stored
"""

# An event waits while an earlier one of its order is not settled. Whoever takes one has it for $3 seconds; when he
# dies, it is due again. Not by NOT EXISTS: a PostgreSQL that has not counted its rows yet would compare each with all.
CLAIM = """
UPDATE shop.outbox SET attempts = attempts + 1, next_at = now() + make_interval(secs => $3)
FROM (
    SELECT due.id FROM shop.outbox AS due
    WHERE due.state = 'pending' AND due.consumer = $1 AND due.next_at <= now() AND (
        SELECT earlier.id FROM shop.outbox AS earlier
        WHERE earlier.state = 'pending' AND earlier.consumer = due.consumer AND earlier.store_id = due.store_id
            AND earlier.order_key = due.order_key AND earlier.order_key <> '' AND earlier.id < due.id
        ORDER BY earlier.id LIMIT 1) IS NULL
    ORDER BY due.next_at, due.id LIMIT $2 FOR UPDATE SKIP LOCKED
) AS chosen, shop.inbox
WHERE outbox.id = chosen.id AND inbox.id = outbox.inbox_id
RETURNING outbox.id, outbox.attempts, outbox.replays, extract(epoch FROM now() - outbox.created_at)::float8 AS age,
    inbox.id AS inbox_id, inbox.endpoint, inbox.event_id, inbox.topic, inbox.order_key, inbox.received_at,
    inbox.occurred_at, inbox.body, (SELECT name FROM shop.stores WHERE stores.id = inbox.store_id) AS store
"""

# `attempts`: who comes back after his time is over changes nothing for who has taken it since.
_SETTLE = """
UPDATE shop.outbox SET state = result.state, reason = result.reason, last_error = result.error,
    next_at = now() + make_interval(secs => result.delay),
    settled_at = CASE WHEN result.state <> 'pending' THEN now() END
FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[], $5::text[], $6::float8[])
    AS result (id, attempts, state, reason, error, delay)
WHERE outbox.id = result.id AND outbox.attempts = result.attempts AND outbox.state = 'pending'
"""

_REPLAY = """
WITH again AS (
    UPDATE shop.outbox SET state = 'pending', reason = NULL, next_at = now(), created_at = now(), attempts = 0,
        replays = replays + 1, settled_at = NULL
    FROM shop.inbox
    WHERE inbox.id = outbox.inbox_id AND inbox.body IS NOT NULL
        AND CASE WHEN $1::bigint IS NULL THEN outbox.state = 'dead' ELSE inbox.id = $1 END
    RETURNING outbox.inbox_id, outbox.consumer
), routed AS (
    INSERT INTO shop.outbox (store_id, inbox_id, consumer, order_key)
    SELECT inbox.store_id, inbox.id, consumer, inbox.order_key
    FROM shop.inbox CROSS JOIN unnest($2::text[]) AS consumer
    WHERE inbox.id = $1 AND inbox.body IS NOT NULL
    ON CONFLICT (inbox_id, consumer) DO NOTHING
    RETURNING inbox_id, consumer
)
SELECT inbox_id, consumer FROM again UNION SELECT inbox_id, consumer FROM routed ORDER BY 1, 2
"""

_DEAD = """
SELECT inbox.id, inbox.endpoint, inbox.event_id, inbox.topic, inbox.order_key, inbox.received_at, outbox.consumer,
    outbox.reason, outbox.last_error, outbox.attempts, outbox.settled_at
FROM shop.outbox JOIN shop.inbox ON inbox.id = outbox.inbox_id
WHERE outbox.state = 'dead' ORDER BY outbox.settled_at DESC LIMIT $1
"""

# What is finished goes, a thousand rows at a time, so that nobody has to wait for it.
_FORGET = {
    "settled": """
        DELETE FROM shop.outbox WHERE id IN (SELECT id FROM shop.outbox
            WHERE state = 'done' AND settled_at < now() - make_interval(days => $1)
               OR state = 'dead' AND settled_at < now() - make_interval(days => $2) LIMIT 1000)""",
    "payloads": """
        UPDATE shop.inbox SET body = NULL WHERE id IN (SELECT id FROM shop.inbox
            WHERE body IS NOT NULL AND received_at < now() - make_interval(days => $1)
            AND NOT EXISTS (SELECT FROM shop.outbox WHERE inbox_id = inbox.id AND state <> 'done') LIMIT 1000)""",
    "oldest": """
        UPDATE shop.inbox SET body = NULL WHERE id IN (SELECT id FROM shop.inbox
            WHERE body IS NOT NULL AND NOT EXISTS (
                SELECT FROM shop.outbox WHERE inbox_id = inbox.id AND state = 'pending') ORDER BY id LIMIT 1000)""",
    "keys": """
        DELETE FROM shop.inbox WHERE id IN (SELECT id FROM shop.inbox
            WHERE received_at < now() - make_interval(days => $1)
            AND NOT EXISTS (SELECT FROM shop.outbox WHERE inbox_id = inbox.id) LIMIT 1000)""",
}

# The disk has it before anybody is told so, and a store's events are for the services of all stores.
_SESSION = {"synchronous_commit": "on", "shop.store": "*", "application_name": "webhook_handler"}


# Of the server, and (ValueError) of the client before it has sent anything.
WRONG_DATA = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError)
_LOST = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event to be stored, and who is to be handed it."""

    store: str
    endpoint: str
    event_id: str
    topic: str
    order_key: str
    occurred_at: datetime | None
    id_signed: bool
    body: bytes
    consumers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How handing over has ended: ``state`` done, dead (with its ``reason``), or pending again after ``delay``."""

    id: int
    attempts: int
    state: str
    reason: str | None = None
    error: str | None = None
    delay: float = 0


class Database:
    """A few connections, made when they are needed and again when they are lost."""

    def __init__(self, postgres: Mapping[str, Any]) -> None:
        self._postgres = postgres
        self._pool: asyncpg.Pool | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the pool. Raises Unavailable."""
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                **self._postgres,
                min_size=0,
                max_size=5,
                timeout=3,
                command_timeout=10,
                server_settings=_SESSION,
                reset=_nothing,
                statement_cache_size=32,
            )
            await self._pool
        try:
            async with self._pool.acquire(timeout=5) as connection:
                try:
                    yield connection
                except _LOST:
                    # Nobody knows what it is in the middle of.
                    connection.terminate()
                    raise
        except WRONG_DATA:
            # No fault of the server's.
            raise
        except (asyncpg.PostgresError, *_LOST) as error:
            raise _away(error) from error

    async def close(self) -> None:
        """Give up all connections."""
        if self._pool is not None:
            self._pool.terminate()

    async def declare_stores(self, names: Sequence[str]) -> None:
        """Have a row for each store that something can come in for."""
        async with self.connection() as connection:
            await connection.execute(
                "INSERT INTO shop.stores (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING", list(names)
            )

    async def store(self, arrivals: Sequence[Arrival]) -> Sequence[int | None]:
        """Store events; for each its number, or None where it was there already. Committed when this returns."""
        try:
            return await self._store(arrivals)
        except WRONG_DATA:
            if len(arrivals) == 1:
                raise
        # One that the database refuses must not take the others with it.
        results: list[int | None] = []
        for arrival in arrivals:
            results += await self._store([arrival])
        return results

    async def _store(self, arrivals: Sequence[Arrival]) -> Sequence[int | None]:
        columns = zip(
            *(
                (
                    arrival.store,
                    arrival.endpoint,
                    arrival.event_id,
                    arrival.topic,
                    arrival.order_key,
                    arrival.occurred_at,
                    _fingerprint(arrival),
                    arrival.body,
                    ",".join(arrival.consumers),
                )
                for arrival in arrivals
            ),
            strict=True,
        )
        async with self.connection() as connection:
            rows = await connection.fetch(_STORE, *map(list, columns))
        stored = {(row["endpoint"], row["event_id"]): row["id"] for row in rows}
        # Of twins in one batch the first is the one.
        return [stored.pop((arrival.endpoint, arrival.event_id), None) for arrival in arrivals]

    async def claim(self, consumer: str, most: int, seconds: float) -> list[Mapping[str, Any]]:
        """Take up to ``most`` events that are due, for ``seconds``."""
        async with self.connection() as connection:
            rows = await connection.fetch(CLAIM, consumer, most, seconds)
        return sorted(rows, key=lambda row: int(row["id"]))

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[None]:
        """Note how handing over has ended."""
        rows = [(one.id, one.attempts, one.state, one.reason, one.error, one.delay) for one in outcomes]
        async with self.connection() as connection:
            await connection.execute(_SETTLE, *(list(column) for column in zip(*rows, strict=True)))
        return [None] * len(outcomes)

    async def abandon(self, known: Sequence[str]) -> int:
        """Give up what waits for consumers that nobody declares any more; how many."""
        async with self.connection() as connection:
            done = await connection.execute(
                "UPDATE shop.outbox SET state = 'dead', reason = 'no_consumer', settled_at = now()"
                " WHERE state = 'pending' AND consumer <> ALL ($1::text[])",
                list(known),
            )
        return _count(done)

    async def event(self, number: int) -> dict[str, Any] | None:
        """One event with what became of it; None where there is none."""
        async with self.connection() as connection:
            row = await connection.fetchrow(
                "SELECT id, endpoint, event_id, topic, order_key, received_at, occurred_at, body IS NOT NULL AS payload"
                " FROM shop.inbox WHERE id = $1",
                number,
            )
            handed = await connection.fetch(
                "SELECT consumer, state, reason, last_error, attempts, replays, next_at, settled_at FROM shop.outbox"
                " WHERE inbox_id = $1 ORDER BY consumer",
                number,
            )
        return {**row, "outbox": [dict(entry) for entry in handed]} if row else None

    async def dead(self, most: int) -> list[dict[str, Any]]:
        """What was given up, the newest first."""
        async with self.connection() as connection:
            return [dict(row) for row in await connection.fetch(_DEAD, most)]

    async def replay(self, number: int | None, consumers: Sequence[str] = ()) -> list[tuple[int, str]]:
        """Hand an event over once more, to who was and to ``consumers``; None: all that was given up."""
        async with self.connection() as connection:
            return [tuple(row) for row in await connection.fetch(_REPLAY, number, list(consumers))]

    async def waiting(self) -> dict[tuple[str, str], int]:
        """How many are pending and dead, by consumer and state."""
        async with self.connection() as connection:
            rows = await connection.fetch(
                "SELECT consumer, state, count(*) AS number FROM shop.outbox WHERE state <> 'done' GROUP BY 1, 2"
            )
        return {(row["consumer"], row["state"]): row["number"] for row in rows}

    async def forget(self, keeping: Keeping) -> dict[str, int]:
        """Remove what is older than it has to be kept; what of it, and how many."""
        done = {
            "settled": await self._repeat("settled", keeping.payload_days, keeping.dead_days),
            "payloads": await self._repeat("payloads", keeping.payload_days),
            "keys": await self._repeat("keys", keeping.key_days),
            "oldest": 0,
        }
        most = keeping.payload_mib * 1024 * 1024
        while await self._payload_bytes() > most and (removed := await self._once("oldest")):
            done["oldest"] += removed
        return done

    async def _payload_bytes(self) -> int:
        async with self.connection() as connection:
            return int(await connection.fetchval("SELECT coalesce(sum(octet_length(body)), 0) FROM shop.inbox"))

    async def _repeat(self, what: str, *arguments: int) -> int:
        total = 0
        while removed := await self._once(what, *arguments):
            total += removed
            await asyncio.sleep(0.05)
        return total

    async def _once(self, what: str, *arguments: int) -> int:
        async with self.connection() as connection:
            return _count(await connection.execute(_FORGET[what], *arguments))


def _fingerprint(arrival: Arrival) -> bytes | None:
    """What tells a body again whose id anybody could have changed."""
    if arrival.id_signed:
        return None
    return hashlib.sha256(arrival.topic.encode() + b"\0" + arrival.body).digest()


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])


async def _nothing(connection: asyncpg.Connection) -> None:
    """Leave a connection as it is: no statement here changes it."""


def _away(error: BaseException) -> Unavailable:
    _log.warning("PostgreSQL: %s: %s", type(error).__name__, error)
    return Unavailable("database", "the database does not answer")
