"""What the webhook handler keeps does not grow without bound, and nothing goes that is still needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from intake_parts import PASSWORD, Parts, database
from test_intake import sql
from webhook_handler.config import Keeping
from webhook_handler.database import Arrival, Database, Outcome

KEEPING = Keeping(payload_days=30, dead_days=90, key_days=400, payload_mib=1, waiting_events=100, give_up_hours=72)
# Age in days and state of an event, and what is left of it: its row, its content, its place in the outbox.
LEFT = [
    (1, "done", (1, 1, 1)),
    (31, "done", (1, 0, 0)),
    (31, "pending", (1, 1, 1)),
    (31, "dead", (1, 1, 1)),
    (91, "dead", (1, 0, 0)),
    (401, "done", (0, 0, 0)),
    (401, "pending", (1, 1, 1)),
    (401, "dead", (0, 0, 0)),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with database(tmp_path_factory.mktemp("keeping")) as made:
        yield made


def use(parts: Parts, work: Any) -> Any:
    """Do something with the handler's own way to the database."""
    address = parts.parts["postgres"].address()
    assert address

    async def run() -> Any:
        login = {"host": address[0], "port": address[1], "user": "shop", "password": PASSWORD, "database": "shop"}
        handler = Database(login)
        try:
            return await work(handler)
        finally:
            await handler.close()

    return asyncio.run(run())


def arrival(name: str, size: int = 10, consumers: tuple[str, ...] = ("shop",)) -> Arrival:
    return Arrival("main", "custom", name, "order", "", None, True, b"x" * size, consumers)


async def settled(handler: Database, state: str) -> None:
    """Bring what is due to an end."""
    for row in await handler.claim("shop", 1000, 60):
        reason = "refused" if state == "dead" else None
        if state != "pending":
            await handler.settle([Outcome(row["id"], row["attempts"], state, reason, "no")])


@pytest.mark.parametrize(("days", "state", "left"), LEFT)
def test_what_is_over_goes_when_it_is_old(parts: Parts, days: int, state: str, left: tuple[int, int, int]) -> None:
    name = f"{state}-{days}"

    async def work(handler: Database) -> None:
        await handler.store([arrival(name)])
        await settled(handler, state)
        async with handler.connection() as connection:
            back = f"now() - interval '{days} days'"
            await connection.execute(f"UPDATE shop.inbox SET received_at = {back} WHERE event_id = $1", name)
            await connection.execute(
                f"UPDATE shop.outbox SET settled_at = {back} FROM shop.inbox"
                " WHERE inbox.id = inbox_id AND event_id = $1 AND settled_at IS NOT NULL",
                name,
            )
        # What the first pass removes makes way for the second.
        await handler.forget(KEEPING)
        await handler.forget(KEEPING)

    use(parts, work)
    query = """
        SELECT count(*), count(body), count(inbox_id)
        FROM inbox LEFT JOIN outbox ON inbox_id = inbox.id WHERE event_id = $1"""
    assert tuple(sql(parts, query, name)[0]) == left


def test_of_too_much_the_oldest_content_that_is_over_goes_first(parts: Parts) -> None:
    async def work(handler: Database) -> Any:
        await handler.store([arrival(f"big-{number}", 400_000, ()) for number in range(4)])
        await handler.store([arrival("big-waiting", 400_000)])
        return await handler.forget(replace(KEEPING, payload_mib=1))

    assert use(parts, work)["oldest"] >= 4
    rows = sql(parts, "SELECT event_id FROM inbox WHERE event_id LIKE 'big-%' AND body IS NOT NULL")
    assert [row["event_id"] for row in rows] == ["big-waiting"]


def test_what_waits_for_nobody_is_given_up_and_says_so(parts: Parts) -> None:
    async def work(handler: Database) -> int:
        await handler.store([arrival("orphan", consumers=("somebody-of-before",))])
        return await handler.abandon(["shop"])

    assert use(parts, work) == 1
    row = sql(parts, "SELECT state, reason FROM outbox WHERE consumer = 'somebody-of-before'")[0]
    assert tuple(row) == ("dead", "no_consumer")


def test_who_comes_back_after_his_time_changes_nothing(parts: Parts) -> None:
    """A claim that has run out was given to another."""

    async def work(handler: Database) -> list[str]:
        await handler.store([arrival("slow")])
        [first] = [row for row in await handler.claim("shop", 1000, 0) if row["event_id"] == "slow"]
        [second] = [row for row in await handler.claim("shop", 1000, 60) if row["event_id"] == "slow"]
        states = []
        for row, state in ((first, "dead"), (second, "done")):
            reason = "refused" if state == "dead" else None
            await handler.settle([Outcome(row["id"], row["attempts"], state, reason)])
            async with handler.connection() as connection:
                query = "SELECT state FROM shop.outbox WHERE id = $1"
                states.append(await connection.fetchval(query, row["id"]))
        return states

    assert use(parts, work) == ["pending", "done"]


def test_an_unknown_store_is_an_error_and_no_duplicate(parts: Parts) -> None:
    import asyncpg

    async def work(handler: Database) -> Any:
        return await handler.store([arrival("good"), replace(arrival("bad"), store="nowhere")])

    with pytest.raises(asyncpg.NotNullViolationError):
        use(parts, work)
    # The one beside it was not taken along.
    assert sql(parts, "SELECT count(*) FROM inbox WHERE event_id = 'good'")[0][0] == 1


def test_twins_in_one_transaction_are_one(parts: Parts) -> None:
    async def work(handler: Database) -> Any:
        return await handler.store([arrival("twin"), arrival("twin"), arrival("single"), arrival("twin")])

    first, second, single, third = use(parts, work)
    assert (second, third) == (None, None)
    assert first
    assert single
