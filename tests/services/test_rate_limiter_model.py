"""What the limiter admits, held against exact models over random schedules: real Redis, a clock that jumps."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import math
import secrets
import zoneinfo
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limiter_harness import BASE, SECOND, Bench, policy
from rate_limiter.limiter import Ask, Asks, Booking, Decision, Unavailable
from rate_limiter.policies import Policy

STEADY = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LIMIT, SPAN = 5, 60 * SECOND
LOG = policy(limit=LIMIT, window_seconds=60)
GCRA = policy(algorithm="gcra", limit=LIMIT, window_seconds=60)
DAY = policy(algorithm="calendar", limit=LIMIT, period="day", time_zone="America/Los_Angeles")
CHAT = policy(
    limit=LIMIT,
    window_seconds=60,
    also=[{"limit": 2, "window_seconds": 90, "per": "chat"}, {"limit": 8, "window_seconds": 300}],
)

costs = st.integers(0, LIMIT + 1)
pauses = st.one_of(st.integers(0, 3), st.integers(0, 25 * SECOND), st.sampled_from([SPAN - 1, SPAN, SPAN + 1]))
jumps = st.one_of(st.just(0), st.just(0), st.integers(-2 * SPAN, 2 * SPAN))
checks = st.lists(st.tuples(pauses, jumps, costs, st.integers(0, 1)), min_size=1, max_size=25)


class LogModel:
    """An exact log the slow way: a list of all dates there ever were."""

    def __init__(self, limit: int, span: int) -> None:
        self.limit, self.span, self.dates = limit, span, list[int]()

    def check(self, clock: int, cost: int) -> tuple[bool, int, int, int | None]:
        """allowed, remaining, reset_in, retry_after"""
        newest = max(self.dates, default=clock)
        if newest > clock + self.span:
            self.dates, newest = [clock] * len(self.dates), clock
        now = max(clock, newest)
        counted = sorted(date for date in self.dates if date > now - self.span)
        fits = len(counted) + cost <= self.limit or cost == 0
        wait: int | None = 0
        if fits and cost:
            # What has grown old goes now and not before: a clock that is set back makes it young again.
            self.dates = counted = counted + [now] * cost
        elif cost > self.limit:
            wait = None
        elif cost:
            wait = counted[len(counted) + cost - self.limit - 1] + self.span - clock
        reset = counted[-1] + self.span - clock if counted else 0
        return fits, max(0, self.limit - len(counted)), reset, wait


def told(decision: Decision) -> tuple[bool, int, int, int | None]:
    return decision.allowed, decision.remaining, decision.reset_in, decision.retry_after


@STEADY
@given(schedule=checks)
def test_a_log_does_what_its_model_does(limiter_bench: Bench, schedule: list[tuple[int, int, int, int]]) -> None:
    if len(limiter_bench.workers) == 1:
        # Alone it keeps count by its own clock too, and is stricter: see the next test.
        schedule = [(pause, 0, cost, 0) for pause, jump, cost, _ in schedule]
    tenant, model = secrets.token_hex(6), LogModel(LIMIT, SPAN)

    async def follow() -> None:
        for pause, jump, cost, number in schedule:
            await limiter_bench.pass_time(pause, jump)
            worker = limiter_bench.workers[number]
            worker._denials.clear()
            if number % 2 and cost:
                [decision] = await worker.check_all([Ask(LOG, tenant, cost)], plain=False)
            else:
                decision = await worker.check(LOG, tenant, cost)
            assert told(decision) == model.check(limiter_bench.clock, cost), schedule

    limiter_bench.run(follow())


@STEADY
@given(schedule=checks)
def test_no_window_of_real_time_holds_more_than_the_limit(
    limiter_bench: Bench, schedule: list[tuple[int, int, int, int]]
) -> None:
    """Whatever the clock of Redis does: who is alone notices that it was set, by its own."""
    if len(limiter_bench.workers) == 2:
        schedule = [(pause, 0, cost, number) for pause, _, cost, number in schedule]
    tenant = secrets.token_hex(6)
    admitted: list[float] = []

    async def follow() -> None:
        for pause, jump, cost, number in schedule:
            await limiter_bench.pass_time(pause, jump)
            worker = limiter_bench.workers[number % len(limiter_bench.workers)]
            if cost and (await worker.check(LOG, tenant, cost)).allowed:
                admitted.extend([limiter_bench.ours] * cost)

    limiter_bench.run(follow())
    assert_never_more(admitted, LIMIT, SPAN / SECOND)


@pytest.mark.parametrize("windows", [LOG, GCRA, DAY, CHAT], ids=["log", "gcra", "day", "chat"])
def test_a_question_that_is_kept_is_answered_anew(limiter_bench: Bench, windows: Policy) -> None:
    """A list put together once, asked today and tomorrow; a calendar's day must not be kept with it."""
    worker, answers = limiter_bench.workers[0], list[Sequence[Decision] | Unavailable]()
    asks = Asks([Ask(windows, secrets.token_hex(6), 1, {"chat": "one"} if windows is CHAT else {})] * LIMIT * 2)
    fitting = 2 if windows is CHAT else LIMIT

    async def ask() -> list[bool]:
        worker._denials.clear()
        worker.check_soon(asks, answers.append)
        async with asyncio.timeout(10):
            while not answers:
                await asyncio.sleep(0)
        decisions = answers.pop()
        assert not isinstance(decisions, Unavailable)
        return [decision.allowed for decision in decisions]

    async def follow() -> None:
        for _ in range(3):
            assert await ask() == [True] * fitting + [False] * (2 * LIMIT - fitting)
            assert not any(await ask())
            await limiter_bench.pass_time(24 * 3600 * SECOND)

    limiter_bench.run(follow())


def test_list_with_a_booked_log_in_its_midst_takes_each_unit_once(limiter_bench: Bench) -> None:
    """There the short script ends, and another one goes on with what is left of the list."""
    worker, free, booked = limiter_bench.workers[0], secrets.token_hex(6), secrets.token_hex(6)

    async def follow() -> None:
        assert (await worker.check(LOG, booked, LIMIT)).allowed
        assert (await worker.reserve(LOG, booked, 1, {}, 2 * SPAN)).id
        asked = [Ask(LOG, free), Ask(LOG, booked), Ask(LOG, free)]
        assert [one.allowed for one in await worker.check_all(asked)] == [True, False, True]
        assert (await worker.check(LOG, free, 0)).remaining == LIMIT - 2

    limiter_bench.run(follow())


def assert_never_more(admitted: list[float], limit: int, span: float) -> None:
    admitted = sorted(admitted)
    for first, beyond in zip(admitted, admitted[limit:], strict=False):
        assert beyond - first >= span - 1e-5, f"{limit + 1} units within {beyond - first} s"


@STEADY
@given(schedule=checks)
def test_a_bucket_does_what_its_model_does(limiter_bench: Bench, schedule: list[tuple[int, int, int, int]]) -> None:
    step, full = SPAN // LIMIT, 0
    tenant = secrets.token_hex(6)

    async def follow() -> None:
        nonlocal full
        for pause, _, cost, number in schedule:
            await limiter_bench.pass_time(pause)
            clock = limiter_bench.clock
            worker = limiter_bench.workers[number % len(limiter_bench.workers)]
            worker._denials.clear()
            decision = await worker.check(GCRA, tenant, cost)
            full = max(full, clock)
            wait = max(0, full + (cost - LIMIT) * step - clock)
            if fits := cost == 0 or (wait == 0 and cost <= LIMIT):
                full += cost * step
            expected = None if cost > LIMIT else 0 if fits else wait
            assert told(decision) == (fits, LIMIT - math.ceil((full - clock) / step), full - clock, expected)

    limiter_bench.run(follow())


@STEADY
@given(schedule=st.lists(st.tuples(st.integers(0, 9 * 3600 * SECOND), costs), min_size=1, max_size=20))
def test_a_day_begins_at_midnight_of_its_zone(limiter_bench: Bench, schedule: list[tuple[int, int]]) -> None:
    zone = zoneinfo.ZoneInfo("America/Los_Angeles")
    tenant, taken = secrets.token_hex(6), dict[datetime.date, int]()

    async def follow() -> None:
        for pause, cost in schedule:
            await limiter_bench.pass_time(pause)
            today = datetime.datetime.fromtimestamp(limiter_bench.clock / SECOND, zone)
            midnight = datetime.datetime.combine(today.date() + datetime.timedelta(days=1), datetime.time(), zone)
            left = round(midnight.timestamp()) * SECOND - limiter_bench.clock
            limiter_bench.workers[0]._denials.clear()
            decision = await limiter_bench.workers[0].check(DAY, tenant, cost)
            before = taken.get(today.date(), 0)
            fits = cost == 0 or before + cost <= LIMIT
            taken[today.date()] = before + (cost if fits else 0)
            used = taken[today.date()]
            expected = None if cost > LIMIT else 0 if fits else left
            assert told(decision) == (fits, LIMIT - used, left if used else 0, expected)

    limiter_bench.run(follow())


@STEADY
@given(
    schedule=st.lists(
        st.tuples(
            pauses, st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["", "a", "b"])), max_size=4), st.booleans()
        ),
        max_size=15,
    )
)
def test_many_checks_in_one_go_count_like_one_after_the_other(
    limiter_bench: Bench, schedule: list[tuple[int, list[tuple[int, str]], bool]]
) -> None:
    tenant = secrets.token_hex(6)
    models = {
        "": [LogModel(LIMIT, SPAN), LogModel(8, 300 * SECOND)],
        "a": [LogModel(2, 90 * SECOND)],
        "b": [LogModel(2, 90 * SECOND)],
    }

    async def follow() -> None:
        for pause, asked, together in schedule:
            await limiter_bench.pass_time(pause)
            asks = [Ask(CHAT, tenant, cost, {"chat": chat} if chat else {}) for cost, chat in asked]
            worker = limiter_bench.workers[0]
            worker._denials.clear()
            decisions = await worker.check_all(asks, together=together)
            before = {name: [list(model.dates) for model in of] for name, of in models.items()}
            expected = []
            for cost, chat in asked:
                windows = models[""] + (models[chat] if chat else [])
                fits = (
                    all(len(live(model, limiter_bench.clock)) + cost <= model.limit for model in windows) or cost == 0
                )
                expected.append(fits)
                for model in windows if fits else ():
                    model.check(limiter_bench.clock, cost)
            if together and len(asks) > 1 and not all(expected):
                for name, of in models.items():
                    for model, dates in zip(of, before[name], strict=True):
                        model.dates = dates
                expected = [False] * len(asks)
            assert [decision.allowed for decision in decisions] == expected

    limiter_bench.run(follow())


def live(model: LogModel, clock: int) -> list[int]:
    return [date for date in model.dates if date > clock - model.span]


steps = st.lists(
    st.tuples(
        st.sampled_from(["check", "reserve", "reserve", "refund", "report"]),
        pauses,
        st.integers(1, 3),
        st.integers(0, 200),
    ),
    min_size=1,
    max_size=25,
)


@STEADY
@given(schedule=steps, kind=st.sampled_from([LOG, CHAT]))
def test_reservations_start_one_after_the_other_and_never_too_many(
    limiter_bench: Bench, schedule: list[tuple[str, int, int, int]], kind: Policy
) -> None:
    tenant, worker = secrets.token_hex(6), limiter_bench.workers[0]
    started: list[float] = []
    booked: dict[str, tuple[float, int]] = {}
    starts: list[float] = []

    async def follow() -> None:
        blocked = 0.0
        for what, pause, cost, seconds in schedule:
            await limiter_bench.pass_time(pause)
            now = limiter_bench.ours
            for name in [name for name, (start, _) in booked.items() if start <= now]:
                start, units = booked.pop(name)
                started.extend([start] * units)
            if what == "check":
                decision = await worker.check(kind, tenant, cost)
                if decision.allowed:
                    assert now >= blocked - 1e-6
                    assert now >= max(starts, default=0) - 1e-6 or not booked, "nobody goes before who has booked"
                    started.extend([now] * cost)
            elif what == "reserve":
                booking: Booking = await worker.reserve(kind, tenant, cost, {}, (seconds + 1) * SECOND)
                if booking.id:
                    assert booking.starts_in is not None
                    start = now + booking.starts_in / SECOND
                    assert start >= blocked - 1e-5
                    assert start >= max((other for other, _ in booked.values()), default=0)
                    booked[booking.id] = (start, cost)
                    starts[:] = [start]
            elif what == "refund" and booked:
                name = sorted(booked)[0]
                assert await worker.refund(kind, tenant, {}, name) == booked[name][1]
                assert await worker.refund(kind, tenant, {}, name) == 0, "given back twice"
                del booked[name]
                starts[:] = [max((start for start, _ in booked.values()), default=0.0)]
            elif what == "report":
                length = await worker.report(kind, tenant, (seconds + 1) * SECOND)
                blocked = max(blocked, now + length / SECOND)

    limiter_bench.run(follow())
    every = started + list(itertools.chain.from_iterable([start] * units for start, units in booked.values()))
    assert_never_more(every, LIMIT, 60)
    if kind is CHAT:
        assert_never_more(every, 8, 300)


def test_every_caller_gets_a_start_of_its_own(limiter_bench: Bench) -> None:
    tenant, worker = secrets.token_hex(6), limiter_bench.workers[0]

    async def book() -> list[Any]:
        return [await worker.reserve(LOG, tenant, 1, {}, 3600 * SECOND) for _ in range(4 * LIMIT)]

    starts = [booking.starts_in for booking in limiter_bench.run(book())]
    assert starts == sorted(starts)
    assert len(set(starts[LIMIT:])) == 3 * LIMIT
    assert [start // SPAN for start in starts] == [number // LIMIT for number in range(4 * LIMIT)]


def test_a_start_too_far_away_is_not_booked(limiter_bench: Bench) -> None:
    tenant, worker = secrets.token_hex(6), limiter_bench.workers[0]

    async def book() -> list[Booking]:
        return [await worker.reserve(LOG, tenant, cost, {}, 10 * SECOND) for cost in (LIMIT, 1, LIMIT + 1)]

    first, late, never = limiter_bench.run(book())
    assert first.id
    assert (late.id, late.starts_in) == (None, pytest.approx(SPAN, abs=2))
    assert (never.id, never.starts_in) == (None, None)


def test_base_is_noon() -> None:
    assert datetime.datetime.fromtimestamp(BASE / SECOND, datetime.UTC).hour == 12
