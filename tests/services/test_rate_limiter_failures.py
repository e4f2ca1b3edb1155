"""What the limiter's core does while Redis is stalled, killed, emptied or full, alone and beside another process."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from limiter_harness import SECOND, Bench, connected, policy, running
from local_redis import LocalRedis
from rate_limiter.api import Api
from rate_limiter.http_front import Later, Request
from rate_limiter.limiter import Ask, Asks, Decision, Limiter, Unavailable
from rate_limiter.metrics import Metrics
from rate_limiter.policies import Policy, read_policies

LIMIT = 40
LOCAL = policy(limit=LIMIT, window_seconds=3600)
CLOSED = policy(limit=LIMIT, window_seconds=3600, on_failure="closed")
OPEN = policy(limit=LIMIT, window_seconds=3600, on_failure="open")
QUICK = policy(limit=LIMIT, window_seconds=1)
KINDS = {
    "log": LOCAL,
    "gcra": policy(algorithm="gcra", limit=LIMIT, window_seconds=3600),
    "calendar": policy(algorithm="calendar", limit=LIMIT, period="month", time_zone="Europe/Berlin"),
    "two windows": policy(limit=LIMIT, window_seconds=3600, also=[{"limit": 100, "window_seconds": 7200}]),
}


async def take(limiter: Limiter, of: Policy, tenant: str, times: int) -> list[Decision | None]:
    """So many checks one after the other; None: no answer was to be had."""
    found: list[Decision | None] = []
    for _ in range(times):
        try:
            found.append(await limiter.check(of, tenant))
        except Unavailable:
            found.append(None)
    return found


def admitted(decisions: list[Decision | None]) -> int:
    return sum(decision is not None and decision.allowed for decision in decisions)


def flush(redis: LocalRedis) -> None:
    redis.command("FLUSHALL")


def restart(redis: LocalRedis) -> None:
    redis.remove()
    redis.start()


def fill(redis: LocalRedis) -> None:
    redis.command("CONFIG", "SET", "maxmemory", 1)


def stall(redis: LocalRedis) -> None:
    redis.stall()


def kill(redis: LocalRedis) -> None:
    redis.remove()


@pytest.mark.parametrize("harm", [flush, restart, fill, stall, kill])
@pytest.mark.parametrize("kind", KINDS)
def test_never_more_than_the_limit_whatever_redis_suffers(
    frail_redis: LocalRedis, harm: Callable[[LocalRedis], None], kind: str
) -> None:
    tenant = secrets.token_hex(6)

    async def suffer() -> None:
        async with running(frail_redis, timeout=0.05) as limiter:
            first = await take(limiter, KINDS[kind], tenant, LIMIT // 2)
            harm(frail_redis)
            second = await take(limiter, KINDS[kind], tenant, LIMIT // 4)
            if harm is not flush:
                # Redis came back empty, or does not answer: this process knows what it has admitted.
                assert any(decision and decision.degraded for decision in second)
            if harm is stall:
                await asyncio.sleep(2)
                frail_redis.resume()
            elif harm is kill:
                frail_redis.start()
            elif harm is fill:
                frail_redis.command("CONFIG", "SET", "maxmemory", 0)
            await asyncio.sleep(1.5)
            await connected(limiter)
            third = await take(limiter, KINDS[kind], tenant, LIMIT)
            assert third[0]
            assert not third[0].degraded
            assert admitted(first) == LIMIT // 2
            # What was answered late counts twice at most, so that it may be a few less, and never more.
            assert LIMIT // 2 <= admitted(first + second + third) <= LIMIT
            if harm is not stall:
                assert admitted(first + second + third) == LIMIT

    asyncio.run(suffer())


def test_a_stall_never_lets_more_through_in_any_second(frail_redis: LocalRedis) -> None:
    """Greedy callers before, during and after two seconds in which Redis stands still."""
    taken: list[tuple[float, float]] = []

    async def suffer() -> None:
        async with running(frail_redis, timeout=0.05) as limiter:
            end = time.monotonic() + 6

            async def caller() -> None:
                while time.monotonic() < end:
                    before = time.monotonic()
                    decision = await limiter.check(QUICK, "greedy")
                    after = time.monotonic()
                    assert after - before < 1
                    if decision.allowed:
                        taken.append((before, after))
                    await asyncio.sleep(0.005)

            async def harm() -> None:
                await asyncio.sleep(1.5)
                frail_redis.stall()
                await asyncio.sleep(2)
                frail_redis.resume()

            await asyncio.gather(harm(), *(caller() for _ in range(8)))

    asyncio.run(suffer())
    # Each is dated somewhere between its question and its answer: these lie in one second for certain.
    together = [sum(began <= before and after < began + 1 for before, after in taken) for began, _ in taken]
    assert max(together) <= LIMIT
    assert len(taken) >= 4 * LIMIT


def without(redis: LocalRedis, ask: Callable[[Limiter], Awaitable[Any]], **options: Any) -> Any:
    """Ask a limiter that knows its Redis, which then goes away."""

    async def suffer() -> Any:
        async with running(redis, timeout=0.05, **options) as limiter:
            await limiter.check(LOCAL, "known")
            redis.remove()
            try:
                began = time.monotonic()
                return await ask(limiter), time.monotonic() - began
            finally:
                redis.start()

    return asyncio.run(suffer())


def test_a_closed_policy_says_nothing_without_redis(frail_redis: LocalRedis) -> None:
    with pytest.raises(Unavailable):
        without(frail_redis, lambda limiter: limiter.check(CLOSED, "known"))


def test_an_open_policy_lets_everybody_in(frail_redis: LocalRedis) -> None:
    decision, _ = without(frail_redis, lambda limiter: limiter.check(OPEN, "anybody", 10**6))
    assert (decision.allowed, decision.degraded) == (True, True)


def test_whom_nobody_remembers_is_not_let_in(frail_redis: LocalRedis) -> None:
    """An earlier process may have admitted for that tenant."""
    with pytest.raises(Unavailable):
        without(frail_redis, lambda limiter: limiter.check(LOCAL, "never seen"))


def test_beside_another_process_nobody_answers_alone(frail_redis: LocalRedis) -> None:
    with pytest.raises(Unavailable):
        without(frail_redis, lambda limiter: limiter.check(LOCAL, "known"), instances=2)


def test_many_checks_together_take_all_or_nothing_alone_too(frail_redis: LocalRedis) -> None:
    async def ask(limiter: Limiter) -> list[bool]:
        both = await limiter.check_all([Ask(LOCAL, "known", LIMIT - 2), Ask(LOCAL, "known", 2)], together=True)
        one = await limiter.check(LOCAL, "known", LIMIT - 1)
        return [decision.allowed for decision in (*both, one)]

    answers, _ = without(frail_redis, ask)
    assert answers == [False, False, True]


def test_a_report_holds_without_redis_and_is_written_later(frail_redis: LocalRedis) -> None:
    async def suffer() -> list[Decision]:
        async with running(frail_redis, timeout=0.05) as limiter:
            await limiter.check(LOCAL, "known")
            frail_redis.remove()
            await limiter.report(LOCAL, "known", 100 * SECOND)
            alone = await limiter.check(LOCAL, "known")
            frail_redis.start()
            await asyncio.sleep(1.5)
            await connected(limiter)
            await asyncio.sleep(0.3)
        async with running(frail_redis) as other:
            return [alone, await other.check(LOCAL, "known")]

    alone, other = asyncio.run(suffer())
    assert (alone.allowed, alone.degraded) == (False, True)
    assert not other.allowed
    assert other.retry_after == pytest.approx(98 * SECOND, abs=2 * SECOND)


def test_answers_come_within_the_budget(frail_redis: LocalRedis) -> None:
    async def ask() -> list[float]:
        async with running(frail_redis, timeout=0.05) as limiter:
            await limiter.check(LOCAL, "known")
            frail_redis.stall()
            took = []
            for _ in range(6):
                began = time.monotonic()
                await limiter.check(LOCAL, "known")
                took.append(time.monotonic() - began)
            frail_redis.resume()
            return took

    took = asyncio.run(ask())
    assert max(took) < 0.5
    # After three in a row nobody waits for it any more.
    assert max(took[3:]) < 0.04


def test_of_many_callers_at_once_exactly_the_limit_get_in(local_redis: LocalRedis) -> None:
    tenant = secrets.token_hex(6)

    async def rush() -> int:
        async with running(local_redis, instances=2) as one, running(local_redis, instances=2) as other:
            calls = [(one, other)[number % 2].check(LOCAL, tenant) for number in range(2048)]
            return admitted(list(await asyncio.gather(*calls)))

    assert asyncio.run(rush()) == LIMIT


def test_a_script_that_redis_forgot_is_loaded_again(local_redis: LocalRedis) -> None:
    async def forget() -> list[Decision]:
        async with running(local_redis) as limiter:
            local_redis.command("SCRIPT", "FLUSH")
            return list(await asyncio.gather(*(limiter.check(LOCAL, secrets.token_hex(6)) for _ in range(50))))

    assert all(decision.allowed and not decision.degraded for decision in asyncio.run(forget()))


def test_its_user_may_do_all_that_it_asks(local_redis: LocalRedis) -> None:
    local_redis.command("ACL", "LOG", "RESET")
    every = policy(
        limit=9,
        window_seconds=60,
        also=[
            {"algorithm": "gcra", "limit": 9, "window_seconds": 60},
            {"algorithm": "calendar", "limit": 9, "period": "day", "time_zone": "UTC"},
        ],
    )

    async def use() -> None:
        async with running(local_redis) as limiter:
            tenant = secrets.token_hex(6)
            await limiter.check(every, tenant, 2)
            bookings = [await limiter.reserve(every, tenant, 1, {}, SECOND) for _ in range(2)]
            for booking in bookings:
                assert booking.id
                assert await limiter.refund(every, tenant, {}, booking.id) == 1
            await limiter.report(every, tenant, SECOND)
            limiter._unwritten.update(limiter._mirrors, limiter._blocks)
            await asyncio.gather(*limiter._push())
            await limiter.ping()

    asyncio.run(use())
    assert local_redis.command("ACL", "LOG") == [], "Redis refused a command"


def test_denials_are_remembered_and_ask_nobody(limiter_bench: Bench) -> None:
    tenant, worker = secrets.token_hex(6), limiter_bench.workers[0]

    async def ask() -> None:
        await worker.check(LOCAL, tenant, LIMIT)
        first = await worker.check(LOCAL, tenant)
        sent = worker.link._send
        worker.link._send = lambda *_: pytest.fail("Redis was asked")  # type: ignore[method-assign]
        try:
            await limiter_bench_pass(10 * SECOND)
            again = await worker.check(LOCAL, tenant)
            many = await worker.check_all([Ask(LOCAL, tenant)] * 3)
        finally:
            worker.link._send = sent  # type: ignore[method-assign]
        assert [one.allowed for one in many] == [False] * 3
        between = [
            Ask(LOCAL, tenant),
            Ask(LOCAL, f"{tenant}-2", LIMIT - 1),
            Ask(LOCAL, tenant),
            Ask(LOCAL, f"{tenant}-2"),
        ]
        assert [one.allowed for one in await worker.check_all(between)] == [False, True, False, True]
        between[1:] = [Ask(LOCAL, f"{tenant}-3")]
        assert [one.allowed for one in await worker.check_all(between, together=True)] == [False, False]
        assert (await worker.check(LOCAL, f"{tenant}-3", LIMIT)).allowed, "all or none took something"
        assert first.retry_after
        assert (again.allowed, again.retry_after) == (False, pytest.approx(first.retry_after - 10 * SECOND, abs=2))
        assert again.reset_in == pytest.approx(first.reset_in - 10 * SECOND, abs=2)
        await limiter_bench.pass_time(3600 * SECOND)
        assert (await worker.check(LOCAL, tenant)).allowed

    async def limiter_bench_pass(microseconds: int) -> None:
        limiter_bench.ours += microseconds / SECOND
        limiter_bench.clock += microseconds

    limiter_bench.run(ask())


def test_a_remembered_denial_tells_what_is_left_of_each_wait(limiter_bench: Bench) -> None:
    tenant, worker = secrets.token_hex(6), limiter_bench.workers[0]
    one = {"limit": 5, "window_seconds": 60}
    policies = read_policies({"policies": {"one": one, "two": {**one, "also": [{"limit": 5, "window_seconds": 10}]}}})
    api = Api(worker, policies, Metrics(policies), {})

    async def ask(name: str, cost: int) -> str:
        body = json.dumps({"api": name, "key": tenant, "cost": cost}).encode()
        answer = api.handle(Request("POST", "/v1/check", b"", b"", body, True))
        assert isinstance(answer, Later)
        async with asyncio.timeout(10):
            while answer.response is None:
                await asyncio.sleep(0)
        return answer.response.head.decode().splitlines()[1]

    async def use() -> None:
        for name in policies:
            await ask(name, 5)
            await ask(name, 1)
        limiter_bench.ours += 20.5
        assert await ask("one", 1) == 'ratelimit: "one";r=0;t=40'
        assert await ask("two", 1) == 'ratelimit: "two";r=0;t=40, "two/log..10";r=0;t=0'

    limiter_bench.run(use())


def test_redis_gets_the_first_questions_before_the_last_is_read(limiter_bench: Bench) -> None:
    tenant, worker = secrets.token_hex(6), limiter_bench.workers[0]
    answers: list[Sequence[Decision] | Unavailable] = []

    async def ask() -> list[bytes]:
        wire = worker.link.wire
        assert wire
        transport = wire.transport
        written: list[bytes] = []
        wire.transport = SimpleNamespace(write=written.append)  # type: ignore[assignment]
        for _ in range(17):
            worker.check_soon(Asks([Ask(LOCAL, tenant)]), answers.append)
        sent = list(written)
        wire.transport = transport
        transport.write(b"".join(written))
        async with asyncio.timeout(10):
            while len(answers) < 17:
                await asyncio.sleep(0)
        return sent

    sent = limiter_bench.run(ask())
    assert len(sent) == 4, "four at a time"
    assert not any(isinstance(answer, Unavailable) for answer in answers)


def test_a_policy_that_only_watches_allows_and_says_so(limiter_bench: Bench) -> None:
    watching = policy(limit=1, window_seconds=3600, shadow=True)
    tenant, worker = secrets.token_hex(6), limiter_bench.workers[0]

    async def ask() -> list[Decision]:
        return [await worker.check(watching, tenant) for _ in range(2)]

    answers = limiter_bench.run(ask())
    assert [(answer.allowed, answer.refused) for answer in answers] == [(True, False), (True, True)]
