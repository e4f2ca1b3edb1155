"""The posting queue with real neighbours: a post is published once, whatever goes wrong, whenever it is cut."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from posting_parts import FORGET, Neighbours, neighbours, publish_once
from posting_provider import TROUBLE
from posting_queue.config import Account, Config
from posting_queue.limiter import RateLimiterClient
from posting_queue.publisher import Publisher
from posting_queue.store import Store
from posting_queue.tasks import Queue
from posting_queue.tracking import Tracker

FORK = multiprocessing.get_context("fork")
POINTS = (
    (RateLimiterClient, "_ask"),
    (httpx.HTTPTransport, "handle_request"),
    (psycopg.Cursor, "execute"),
    (psycopg.Transaction, "__exit__"),
)


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with neighbours(tmp_path_factory.mktemp("posting")) as found:
        yield found


@pytest.fixture(autouse=True)
def _empty(around: Neighbours) -> None:
    around.sql(FORGET)
    around.control(media=[], calls=[], trouble=[], containers={}, rate=0, looks=1, usage=0, quota=50, insights={})


@pytest.fixture
def account(around: Neighbours) -> Account:
    return around.account()


# Exactly once.


def _publish_and_die(config: Config, post: int, number: int) -> None:
    """In a process of its own: publish, and be killed at the number-th of all points before and after what is done."""
    points = itertools.count(1)

    def point() -> None:
        if next(points) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            point()
            result = original(*arguments, **named)
            point()
            return result

        setattr(owner, name, watched)

    for owner, name in POINTS:
        watch(owner, name)
    publish_once(config, post)


def killed(config: Config, post: int, number: int) -> bool:
    """Whether it got as far as the point where it is killed."""
    child = FORK.Process(target=_publish_and_die, args=(config, post, number))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def test_killed_at_each_point_a_post_is_published_once(around: Neighbours, account: Account) -> None:
    config = around.config()
    for number in itertools.count(1):
        around.control(looks=number % 2 + 1)
        caption = f"killed at {number}"
        post = around.due(account.store, caption)
        was_killed = killed(config, post, number)
        state = around.settle(post)
        [media] = around.media(caption)
        assert (state["status"], state["external_id"]) == ("published", media["id"]), (number, state)
        if not was_killed:
            break
    assert number > 36, f"only {number} points were tried"


def test_killed_again_and_again_a_post_is_published_once(around: Neighbours, account: Account) -> None:
    """Each attempt gets a bit further than the one before."""
    config = around.config()
    for first in (1, 3, 8):
        caption = f"killed from {first} on"
        post = around.due(account.store, caption)
        for number in range(first, 60, 3):
            around.sql("UPDATE shop.publications SET next_at = now() WHERE post_id = %s", post)
            killed(config, post, number)
        assert around.settle(post)["status"] == "published"
        assert len(around.media(caption)) == 1


@pytest.mark.parametrize("operation", ["prepare", "state", "publish"])
@pytest.mark.parametrize("trouble", sorted(set(TROUBLE) - {"too_many_posts", "locked_out"}))
def test_trouble_at_each_call_neither_loses_nor_doubles(
    around: Neighbours, account: Account, operation: str, trouble: str
) -> None:
    caption = f"{trouble} at {operation}"
    around.control(trouble=[[operation, trouble]])
    post = around.due(account.store, caption)
    state = around.publish(post)
    assert state["state"] == "pending", state
    assert state["last_error"]
    if trouble == "429":
        with around.limiter() as limiter:
            assert not limiter.check("instagram", account.number, 0)["remaining"], "the limiter was not told"
        time.sleep(1.1)
    else:
        assert (state["failures"], state["wait"] > 1) == (1, True)
    state = around.settle(post)
    [media] = around.media(caption)
    assert (state["status"], state["external_id"]) == ("published", media["id"])


def test_the_number_is_found_also_when_finding_it_fails_first(around: Neighbours, account: Account) -> None:
    around.control(trouble=[["publish", "drop_after"], ["recent", "garbage"], ["recent", "500"]])
    post = around.due(account.store, "a caption that stands there once")
    assert around.settle(post)["external_id"] == around.media("a caption that stands there once")[0]["id"]


def test_twins_are_not_taken_for_each_other(around: Neighbours, account: Account) -> None:
    """Where it cannot be told which of several is it, no number is better than a wrong one."""
    first, second = around.due(account.store, "same"), around.due(account.store, "same")
    assert around.settle(first)["external_id"]
    around.control(trouble=[["publish", "drop_after"]])
    state = around.settle(second)
    assert len({one["id"] for one in around.media("same")}) == 2
    assert state["external_id"] not in (None, around.state(first)["external_id"])


def test_a_story_is_published_as_one(around: Neighbours, account: Account) -> None:
    around.control(trouble=[["publish", "hang_after"]])
    post = around.due(account.store, "", channel="instagram_story")
    state = around.settle(post)
    [media] = [one for one in around.control()["media"] if one["account"] == account.number]
    assert (media["kind"], state["external_id"]) == ("stories", media["id"])


@pytest.mark.parametrize("lost", ["ERROR", "EXPIRED"])
def test_a_container_that_came_to_nothing_is_made_again(around: Neighbours, account: Account, lost: str) -> None:
    around.control(looks=99)
    post = around.due(account.store, f"lost: {lost}")
    container = around.publish(post)["container"]
    around.control(looks=1, states={container: lost})
    assert around.publish(post)["container"] is None
    assert around.settle(post)["status"] == "published"
    assert len(around.media(f"lost: {lost}")) == 1


def test_who_was_overtaken_publishes_nothing(
    around: Neighbours, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that stood still for longer than it had the post prepares a container, and leaves it at that."""
    post = around.due(account.store, "overtaken")
    config = around.config(POSTING_LEASE_SECONDS="1")
    with Store(config) as slow:
        job = slow.claim(post)
        assert job
        assert slow.claim(post) is None
        time.sleep(1.1)
        assert around.publish(post, config)["status"] == "published"
        # It wakes up with what it has claimed, and goes on.
        monkeypatch.setattr(slow, "claim", lambda number: job)
        with around.limiter() as limiter, httpx.Client(timeout=1, trust_env=False) as client:
            Publisher(config, slow, limiter, client).publish(post)
        assert not slow.keep_container(job, "17000000999")
        slow.put_off(job, 5, "too late", failed=True)
        slow.give_up(job, "too late")
    assert around.state(post)["status"] == "published"
    assert len(around.media("overtaken")) == 1


# The limits.


def test_nothing_is_sent_without_leave(around: Neighbours, account: Account) -> None:
    with around.limiter() as limiter:
        assert limiter.check("instagram_publishing", account.number, 100)["allowed"]
    post = around.due(account.store, "one too many")
    state = around.publish(post)
    assert "publish" not in around.operations()
    # As long as the limiter says.
    assert (state["state"], state["failures"], 3500 < state["wait"] < 3700) == ("pending", 0, True), state
    with around.limiter() as limiter:
        assert limiter.check("instagram", account.number, 5000 - 2)["allowed"]
    before = len(around.operations())
    around.publish(post)
    assert len(around.operations()) == before


def test_without_the_limiter_nothing_is_sent(around: Neighbours, account: Account) -> None:
    post = around.due(account.store, "unasked")
    state = around.publish(post, around.config(RATE_LIMITER_URL="http://127.0.0.1:9"))
    assert (state["state"], around.operations()) == ("pending", [])
    assert "rate limiter" in state["last_error"]


def test_each_call_was_asked_for_and_is_noted(around: Neighbours, account: Account) -> None:
    with around.limiter() as limiter:
        before = limiter.check("instagram", account.number, 0)["remaining"]
        around.settle(around.due(account.store, "counted"))
        after = limiter.check("instagram", account.number, 0)["remaining"]
    assert around.operations() == ["prepare", "state", "publish"]
    assert before - after == 3
    noted = around.sql("SELECT operation, status FROM shop.api_calls ORDER BY at")
    assert [tuple(row.values()) for row in noted] == [("prepare", 200), ("state", 200), ("publish", 200)]


@pytest.mark.parametrize(
    ("trouble", "wait", "told"), [("too_many_posts", 3600, "instagram_publishing"), ("locked_out", 900, "")]
)
def test_what_only_time_or_a_person_mends_is_waited_for(
    around: Neighbours, account: Account, trouble: str, wait: int, told: str
) -> None:
    around.control(trouble=[["publish", trouble]])
    state = around.publish(around.due(account.store, trouble))
    assert (state["state"], wait - 10 < state["wait"] <= wait) == ("pending", True)
    assert around.control()["media"] == []
    with around.limiter() as limiter:
        denied = {api for api in ("instagram", "instagram_publishing") if not _room(limiter, api, account)}
    assert denied == ({told} if told else set())


def _room(limiter: RateLimiterClient, api: str, account: Account) -> bool:
    return bool(limiter.check(api, account.number, 0)["remaining"])


def test_what_the_provider_never_takes_is_given_up_and_can_be_tried_again(around: Neighbours, account: Account) -> None:
    post = around.due(account.store, "no picture", media_url="ftp://shop.example.com/mug.jpg")
    state = around.publish(post)
    assert (state["status"], state["state"]) == ("failed", "dead")
    assert "9004" in state["last_error"]
    around.sql("UPDATE shop.posts SET media_url = 'https://shop.example.com/mug.jpg' WHERE id = %s", post)
    with Store(around.config()) as store:
        assert store.retry(post)
        store.release()
    assert around.settle(post)["status"] == "published"
    with Store(around.config()) as store:
        assert not store.retry(post)
        # Also where somebody writes into the calendar by hand.
        around.sql("UPDATE shop.posts SET status = 'scheduled', published_at = NULL WHERE id = %s", post)
        around.sql("UPDATE shop.posts SET scheduled_at = now() - interval '1 minute' WHERE id = %s", post)
        assert store.release() == 0
    assert len(around.media("no picture")) == 1


def test_what_nobody_takes_for_long_is_given_up(around: Neighbours, account: Account) -> None:
    post = around.due(account.store, "too late")
    around.control(trouble=[["prepare", "500"]])
    around.sql("UPDATE shop.publications SET created_at = now() - interval '25 hours' WHERE post_id = %s", post)
    state = around.publish(post)
    assert state["status"] == "failed"
    assert "not within 24 hours" in state["last_error"]


# The calendar.


def plan(around: Neighbours, now: datetime | None = None) -> None:
    """One round of the queue's own, without publishing anything."""
    with Store(around.config()) as store:
        Queue(around.config()).plan(store, now or datetime.now(UTC))


def places(around: Neighbours) -> list[tuple[str, str | None]]:
    rows = around.sql(
        "SELECT caption, status, to_char(scheduled_at AT TIME ZONE 'Europe/Berlin', 'DD HH24:MI') AS at"
        " FROM shop.posts ORDER BY id"
    )
    return [(row["status"], row["at"]) for row in rows]


NOON = datetime(2030, 6, 3, 10, tzinfo=UTC)  # 12:00 in Berlin


def test_drafts_take_the_owners_places_in_turn(around: Neighbours, account: Account) -> None:
    for number in range(4):
        around.post(account.store, f"post {number}")
    for number in range(5):
        around.post(account.store, f"story {number}", channel="instagram_story")
    plan(around, NOON)
    planned = places(around)
    assert planned[:4] == [("scheduled", at) for at in ("03 14:00", "03 19:00", "04 09:00", "04 14:00")]
    assert planned[4:] == [("scheduled", "03 15:00")] * 4 + [("scheduled", "03 18:00")]
    around.post(account.store, "one more story", channel="instagram_story")
    plan(around, NOON)
    assert places(around) == [*planned, ("scheduled", "03 18:00")]


def test_stores_have_calendars_of_their_own(around: Neighbours) -> None:
    for _ in range(2):
        around.post(around.account().store, "breakfast")
    plan(around, NOON)
    assert places(around) == [("scheduled", "03 14:00")] * 2


@pytest.mark.parametrize("confidence", [0.69, None])
def test_the_unsure_waits_for_a_person(around: Neighbours, account: Account, confidence: float | None) -> None:
    post = around.post(account.store, "am I funny?", confidence=confidence)
    by_hand = around.post(
        account.store, "slipped in", confidence=confidence, status="scheduled", scheduled_at="2026-01-01 00:00Z"
    )
    plan(around)
    assert [around.state(number)["status"] for number in (post, by_hand)] == ["approval", "approval"]
    with Store(around.config()) as store:
        assert store.release() == 0
        assert store.decide(post, "draft")
        assert store.decide(by_hand, "cancelled")
        assert not store.decide(by_hand, "draft")
    plan(around)
    assert [around.state(number)["status"] for number in (post, by_hand)] == ["scheduled", "cancelled"]


def test_confidence_that_is_enough_needs_nobody(around: Neighbours, account: Account) -> None:
    post = around.post(account.store, "sure", confidence=0.7)
    plan(around)
    assert around.state(post)["status"] == "scheduled"


def test_what_was_missed_waits_for_the_next_place(around: Neighbours, account: Account) -> None:
    late, just = (
        around.post(
            account.store, text, status="scheduled", scheduled_at=datetime.now(UTC) - timedelta(minutes=minutes)
        )
        for text, minutes in (("breakfast", 121), ("lunch", 119))
    )
    plan(around)
    with Store(around.config()) as store:
        assert store.release() == 1
    assert around.state(just)["status"] == "publishing"
    assert around.state(late)["scheduled_at"] > datetime.now(UTC)


def test_variants_come_at_the_same_hour_of_different_days(around: Neighbours, account: Account) -> None:
    around.sql(
        "INSERT INTO shop.experiments (store_id, name) SELECT id, 'emoji' FROM shop.stores WHERE name = %s",
        account.store,
    )
    [experiment] = around.sql("SELECT id FROM shop.experiments")
    for variant in "AB":
        around.post(account.store, f"variant {variant}", variant=variant, experiment=experiment["id"])
    around.post(account.store, "another one")
    plan(around, NOON)
    assert [at for _, at in places(around)] == ["03 14:00", "04 14:00", "03 19:00"]


# What came of it.


def track(around: Neighbours) -> Tracker:
    config = around.config()
    return Tracker(config, Store(config), RateLimiterClient(config.limiter_url), httpx.Client(timeout=1))


def published(around: Neighbours, account: Account, caption: str, hours: float, **fields: object) -> int:
    post = around.due(account.store, caption, **fields)
    assert around.settle(post)["status"] == "published"
    around.sql(
        "UPDATE shop.posts SET published_at = now() - make_interval(secs => %s) WHERE id = %s", hours * 3600, post
    )
    return post


def test_posts_are_looked_at_when_they_have_been_out_for_so_long(around: Neighbours, account: Account) -> None:
    post = published(around, account, "how am I?", 1.5)
    early = published(around, account, "too early", 0.5)
    media = around.state(post)["external_id"]
    around.control(insights={media: {"reach": 200, "likes": 30, "saved": 4}})
    track(around).measure()
    track(around).measure()
    seen = around.state(post)["performance"]
    assert seen == {"1": {"reach": 200, "likes": 30, "comments": 0, "saved": 4, "shares": 0}}
    assert around.state(early)["performance"] == {}
    [row] = around.sql("SELECT value, labels FROM shop.metrics WHERE name = 'post_likes'")
    assert (row["value"], row["labels"]["post"], row["labels"]["hours"]) == (30, post, 1)


def test_the_better_variant_is_named(around: Neighbours, account: Account) -> None:
    around.sql(
        "INSERT INTO shop.experiments (store_id, name) SELECT id, 'emoji' FROM shop.stores WHERE name = %s",
        account.store,
    )
    [experiment] = around.sql("SELECT id FROM shop.experiments")
    posts = [
        published(around, account, f"variant {variant}", 23.5, variant=variant, experiment=experiment["id"])
        for variant in "AB"
    ]
    numbers = [around.state(post)["external_id"] for post in posts]
    around.control(
        insights={numbers[0]: {"reach": 1000, "likes": 50}, numbers[1]: {"reach": 1000, "likes": 90, "saved": 10}}
    )
    track(around).measure()
    [decided] = around.sql("SELECT winner_id, z, decided_at FROM shop.experiments")
    assert (decided["winner_id"], decided["z"] > 3, bool(decided["decided_at"])) == (posts[1], True, True)


def test_limits_that_are_nearly_used_up_are_kept_away_from(around: Neighbours) -> None:
    """The check of every five minutes: the quota of posts, and the usage of the application."""
    account = around.account()
    config = around.config()
    object.__setattr__(config, "accounts", {account.store: account})
    with Store(config) as store, around.limiter() as limiter, httpx.Client(timeout=1) as client:
        tracker = Tracker(config, store, limiter, client)
        around.control(usage=40)
        tracker.check_limits()
        assert _room(limiter, "instagram", account)
        post = published(around, account, "busy day", 1.5)
        around.control(usage=80)
        tracker.check_limits()
        tracker.measure()
        assert around.state(post)["performance"] == {}, "measuring can wait"
        assert _room(limiter, "instagram", account), "publishing goes on"
        around.control(usage=20, quota=1)
        tracker.check_limits()
        assert not _room(limiter, "instagram_publishing", account), "the quota of posts is used up"
        assert _room(limiter, "instagram", account)
        around.control(usage=95)
        tracker.check_limits()
        assert not _room(limiter, "instagram", account)
    rows = around.sql("SELECT name, value FROM shop.metrics ORDER BY at")
    assert [row["value"] for row in rows if row["name"] == "instagram_usage_percent"] == [40, 80, 20, 95]


def test_old_calls_are_forgotten(around: Neighbours, account: Account) -> None:
    around.settle(around.due(account.store, "long ago"))
    around.sql("UPDATE shop.api_calls SET at = now() - interval '31 days' WHERE operation = 'state'")
    with Store(around.config()) as store:
        assert store.forget() == 1
    left = around.sql("SELECT operation FROM shop.api_calls ORDER BY at")
    assert [row["operation"] for row in left] == ["prepare", "publish"]


def test_people_see_the_calendar_and_decide(around: Neighbours, account: Account) -> None:
    post = around.post(account.store, "am I funny?", confidence=0.2)
    plan(around)
    box = around.box("consumer", "pi-commerce/posting_queue:test", ["sleep", "600"], around.environment(inside=True))
    try:
        run = ["python", "-m", "posting_queue"]
        shown = json.loads(box.tool(*run, "calendar"))
        assert (shown["id"], shown["status"], shown["store"]) == (post, "approval", account.store)
        assert box.container.exec_run([*run, "retry", str(post)]).exit_code == 1
        box.tool(*run, "approve", str(post))
        assert around.state(post)["approved_at"]
        box.tool(*run, "reject", str(post))
        assert around.state(post)["status"] == "cancelled"
    finally:
        box.remove()
