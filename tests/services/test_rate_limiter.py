"""What the rate limiter admits, with a real Redis: exactness, costs, tenants, and promised times."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker import DockerClient
from rate_limiter_server import POLICIES, Client, RateLimiter, build_image
from redis_server import RedisServer
from waiting import wait_until

HOUR = 3600
SECOND_US = 1_000_000


def seed(redis: RedisServer, key: str, *ages: float) -> list[int]:
    """Write a log whose entries are ``ages`` seconds old, newest first; the entries, in microseconds."""
    now = redis.clock()
    entries = [int(now - age * SECOND_US) for age in ages]
    redis.command("RPUSH", key, *entries)
    return entries


@pytest.mark.parametrize("api", ["instagram", "facebook", "shopify", "gemini", "telegram"])
def test_a_quota_admits_its_limit_and_no_more(client: Client, tenant: str, api: str) -> None:
    limit = POLICIES[api]["limit"]
    answers = [client.check(api, tenant) for _ in range(limit + 1)]
    assert [answer["allowed"] for answer in answers] == [True] * limit + [False]
    assert [answer["remaining"] for answer in answers] == [*reversed(range(limit)), 0]
    assert answers[-1]["limit"] == limit


@pytest.fixture
def patient(engine: DockerClient, redis: RedisServer, tmp_path: Path) -> Iterator[RateLimiter]:
    """One that waits for Redis however busy the computer is: a check that is given up may have been counted."""
    build_image(engine)
    policies = json.dumps({"policies": POLICIES})
    waits = {"REDIS_TIMEOUT": "10"}
    server = RateLimiter(engine, redis, tmp_path, policies=policies, password=redis.limiter_password, environment=waits)
    try:
        server.ready()
        yield server
    finally:
        server.remove()


def test_of_many_concurrent_callers_exactly_the_limit_get_in(patient: RateLimiter, tenant: str) -> None:
    callers = 400
    start = threading.Barrier(callers)

    def call(_: int) -> tuple[int, object]:
        with patient.client() as client:
            client.connection.connect()
            start.wait(timeout=60)
            answer = client.ask("instagram", tenant)
            end = time.monotonic() + 60
            # A busy computer turns some away before they are counted; they ask again.
            while answer.status == 503 and time.monotonic() < end:
                answer = client.ask("instagram", tenant)
        return answer.status, answer.json.get("allowed")

    with ThreadPoolExecutor(callers) as pool:
        answers = list(pool.map(call, range(callers)))
    assert {status for status, _ in answers} == {200}
    assert sum(allowed is True for _, allowed in answers) == 180


@pytest.mark.parametrize(
    ("costs", "longest_gap", "least"),
    [pytest.param((1,), 0.0, 17, id="greedy"), pytest.param((1, 2, 3), 0.15, 9, id="uneven")],
)
def test_no_window_ever_holds_more_than_the_limit(
    client: Client, redis: RedisServer, tenant: str, costs: tuple[int, ...], longest_gap: float, least: int
) -> None:
    """Admissions are dated by the clock of Redis, read from the log right after each one."""
    schedule = random.Random(5)  # noqa: S311  # a schedule that repeats, no secret
    admitted: list[int] = []
    end = time.monotonic() + 4
    while time.monotonic() < end:
        cost = schedule.choice(costs)
        if client.check("five_a_second", tenant, cost)["allowed"]:
            admitted += [redis.number("LINDEX", f"rl:five_a_second:{tenant}", 0)] * cost
        if longest_gap:
            time.sleep(schedule.uniform(0, longest_gap))
    spans = [after - before for before, after in zip(admitted, admitted[5:], strict=False)]
    assert min(spans) >= SECOND_US, f"six units within {min(spans)} microseconds"
    assert len(admitted) >= least, "the limiter admits far less than it should"


def test_a_denied_check_changes_nothing(client: Client, redis: RedisServer, tenant: str) -> None:
    key = f"rl:five_an_hour:{tenant}"
    # Two entries are spent: an admission would drop them, a denial must leave even those.
    seed(redis, key, 1, 2, 3, 4, 5, HOUR + 1, HOUR + 2)
    before = redis.numbers(key), redis.number("PEXPIRETIME", key)
    for cost in (1, 5, 6):
        assert client.check("five_an_hour", tenant, cost)["allowed"] is False
    assert (redis.numbers(key), redis.number("PEXPIRETIME", key)) == before


def test_a_peek_tells_and_takes_nothing(client: Client, redis: RedisServer, tenant: str) -> None:
    peek = client.check("five_an_hour", tenant, 0)
    expected = {"allowed": True, "remaining": 5, "reset_in": 0, "retry_after": 0}
    assert peek == {"api": "five_an_hour", "limit": 5, **expected}
    assert redis.command("EXISTS", f"rl:five_an_hour:{tenant}") == 0
    client.check("five_an_hour", tenant, 5)
    assert client.check("five_an_hour", tenant, 0)["remaining"] == 0


# Two units 10 s old, three 1000 s old, of five in an hour; and what each cost on top is told.
TOLD = {1: HOUR - 1000, 3: HOUR - 1000, 4: HOUR - 10, 5: HOUR - 10, 6: None, 10**9: None}


@pytest.mark.parametrize(("cost", "retry_after"), TOLD.items())
def test_retry_after_is_when_this_cost_fits(
    client: Client, redis: RedisServer, tenant: str, cost: int, retry_after: int | None
) -> None:
    seed(redis, f"rl:five_an_hour:{tenant}", 10, 10, 1000, 1000, 1000)
    answer = client.check("five_an_hour", tenant, cost)
    assert answer["allowed"] is False
    assert answer["remaining"] == 0
    assert answer["reset_in"] == pytest.approx(HOUR - 10, abs=1)
    assert answer["retry_after"] == (retry_after and pytest.approx(retry_after, abs=1))


def test_a_cost_that_does_not_fit_leaves_room_for_a_smaller_one(client: Client, tenant: str) -> None:
    costs = [3, 3, 2, 1]
    answers = [client.check("five_an_hour", tenant, cost) for cost in costs]
    assert [answer["allowed"] for answer in answers] == [True, False, True, False]
    assert [answer["remaining"] for answer in answers] == [2, 2, 0, 0]


def test_who_waits_retry_after_gets_in(client: Client, tenant: str) -> None:
    assert client.check("five_a_second", tenant, 5)["allowed"]
    retry_after = client.check("five_a_second", tenant, 3)["retry_after"]
    assert isinstance(retry_after, float)
    assert 0 < retry_after <= 1
    time.sleep(retry_after)
    assert client.check("five_a_second", tenant, 3)["allowed"]


def test_nobody_gets_in_before_retry_after(client: Client, tenant: str) -> None:
    assert client.check("five_a_second", tenant, 5)["allowed"]
    while True:
        asked = time.monotonic()
        retry_after = client.check("five_a_second", tenant, 0)["reset_in"]
        assert isinstance(retry_after, float)
        answer = client.check("five_a_second", tenant)
        if answer["allowed"]:
            # Peeked just before: the quota had at most the time between the two requests left to wait.
            assert retry_after <= time.monotonic() - asked + 0.001
            return


def test_tenants_and_apis_do_not_share_a_quota(client: Client, tenant: str) -> None:
    assert client.check("five_an_hour", tenant, 5)["allowed"]
    assert client.check("five_an_hour", f"{tenant}-2", 5)["allowed"]
    assert client.check("gemini", tenant, 5)["allowed"]
    assert not client.check("five_an_hour", tenant)["allowed"]


def test_spent_entries_make_room_and_go(client: Client, redis: RedisServer, tenant: str) -> None:
    key = f"rl:five_an_hour:{tenant}"
    live, *_ = seed(redis, key, 1, HOUR + 1, HOUR + 2, HOUR + 3, HOUR + 4)
    answer = client.check("five_an_hour", tenant, 2)
    assert answer["allowed"] is True
    assert answer["remaining"] == 2
    newest, newer, oldest = redis.numbers(key)
    assert newest == newer
    assert oldest == live


def test_a_lowered_limit_counts_what_was_admitted_before(client: Client, redis: RedisServer, tenant: str) -> None:
    seed(redis, f"rl:five_an_hour:{tenant}", 10, 20, 30, 40, 50, 60, 70)
    answer = client.check("five_an_hour", tenant)
    assert answer["allowed"] is False
    assert answer["remaining"] == 0
    # Three of the seven must go before one fits: the third oldest is 50 s old.
    assert answer["retry_after"] == pytest.approx(HOUR - 50, abs=1)


def test_the_log_goes_when_the_quota_is_full_again(client: Client, redis: RedisServer, tenant: str) -> None:
    key = f"rl:five_a_second:{tenant}"
    client.check("five_a_second", tenant)
    assert 0 < redis.number("PTTL", key) <= 1000
    wait_until(lambda: redis.command("EXISTS", key) == 0, 2, f"{key} expires")


def test_a_clock_set_back_a_little_opens_no_quota(client: Client, redis: RedisServer, tenant: str) -> None:
    seed(redis, f"rl:five_an_hour:{tenant}", -600, -600, -600, -600, -600)
    answer = client.check("five_an_hour", tenant)
    assert answer["allowed"] is False
    assert answer["retry_after"] == pytest.approx(HOUR + 600, abs=1)


def test_entries_of_a_clock_set_forward_in_between_keep_their_order(
    client: Client, redis: RedisServer, tenant: str
) -> None:
    """An admission under a clock that lags behind the log is dated like the newest entry, not before it."""
    key = f"rl:five_an_hour:{tenant}"
    newest, *_ = seed(redis, key, -600, 10)
    assert client.check("five_an_hour", tenant)["remaining"] == 2
    assert redis.numbers(key)[:2] == [newest, newest]


def test_a_clock_that_was_far_ahead_shuts_the_quota_for_one_window_only(
    client: Client, redis: RedisServer, tenant: str
) -> None:
    key = f"rl:five_an_hour:{tenant}"
    seed(redis, key, *[-400 * 24 * HOUR] * 5)
    answer = client.check("five_an_hour", tenant)
    assert answer["allowed"] is False
    assert answer["retry_after"] == pytest.approx(HOUR, abs=1)
    assert redis.number("PTTL", key) <= HOUR * 1000


def test_a_restart_of_the_limiter_keeps_the_count(limiter: RateLimiter, tenant: str) -> None:
    with limiter.client() as client:
        assert client.check("five_an_hour", tenant, 4)["remaining"] == 1
    limiter.container.stop(timeout=10)
    limiter.container.reload()
    assert limiter.container.attrs["State"]["ExitCode"] == 0, limiter.log()
    limiter.container.start()
    limiter.ready()
    with limiter.client() as client:
        assert client.check("five_an_hour", tenant, 0)["remaining"] == 1
