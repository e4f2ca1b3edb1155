"""The queue with Celery, Valkey and PostgreSQL, each of which is killed while the provider misbehaves."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from docker.errors import APIError
from intake_parts import PASSWORD, Box, revive
from posting_parts import ACCOUNTS, FORGET, IMAGE, Neighbours, neighbours
from waiting import wait_until

CYCLES = int(os.environ.get("CYCLES", "100" if os.environ.get("FULL") else "6"))
SEED = int(os.environ.get("SEED", "7"))
STORES = list(ACCOUNTS)[:4]
# What is none of the queue's business.
FORBIDDEN = ("FLUSHALL", "KEYS *", "SET rl:x 1", "XADD webhook:wake * a b", "DEL webhook:wake")


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with neighbours(tmp_path_factory.mktemp("posting-faults")) as found:
        yield found


@pytest.fixture
def queue(around: Neighbours, request: pytest.FixtureRequest) -> Iterator[Box]:
    """The queue as on the Pi, but with less patience; a parameter is more of its environment."""
    around.sql(FORGET)
    around.control(media=[], calls=[], trouble=[], containers={}, rate=0)
    environment = {
        **around.environment(inside=True),
        "POSTING_SWEEP_SECONDS": "1",
        "POSTING_LEASE_SECONDS": "5",
        "RES_OPTIONS": "timeout:1 attempts:1",
        **getattr(request, "param", {}),
    }
    box = around.box("handler", IMAGE, None, environment)
    try:
        wait_until(lambda: alive(box), 60, "the queue works")
        yield box
    finally:
        print(box.container.logs(tail=60).decode())
        box.remove()


def alive(box: Box) -> bool:
    """What its health check asks."""
    try:
        return bool(box.container.exec_run(["sh", "-c", "find /tmp/alive -mmin -3 | grep -q ."]).exit_code == 0)
    except APIError:
        return False


def redis(around: Neighbours, words: str, user: str = "posting_queue") -> str:
    login = ["valkey-cli", "--user", user, "--pass", PASSWORD, "--no-auth-warning"]
    return around.parts.parts["redis"].tool(*login, *words.split())


def test_what_is_due_goes_out_by_itself(around: Neighbours, queue: Box) -> None:
    posts = [around.due(store, f"hello from {store}") for store in STORES]
    draft = around.post(STORES[0], "for later")
    wait_until(lambda: all(around.state(post)["status"] == "published" for post in posts), 60, "all are published")
    wait_until(lambda: around.state(draft)["status"] == "scheduled", 10, "the draft has its place")
    # Worker and scheduler together, of the 192 MiB that they have.
    assert queue.container.stats(stream=False)["memory_stats"]["usage"] / 2**20 < 160
    assert redis(around, "LLEN celery.posting") == "0\n"


def test_queue_waits_for_its_tables(around: Neighbours, queue: Box) -> None:
    """They are made when all services run, and those are waited for until they are healthy."""
    post = around.due(STORES[0], "before the tables")
    around.sql("ALTER SCHEMA shop RENAME TO elsewhere")
    try:
        # The first may be the end of a round that was under way.
        for _ in range(2):
            queue.tool("rm", "/tmp/alive")
            wait_until(lambda: alive(queue), 20, "it is healthy without")
    finally:
        around.sql("ALTER SCHEMA elsewhere RENAME TO shop")
    wait_until(lambda: around.state(post)["status"] == "published", 60, "it is published")


def test_a_post_goes_out_in_the_second_of_its_place(around: Neighbours, queue: Box) -> None:
    number = around.post(STORES[0], "on time")
    around.sql(
        "UPDATE shop.posts SET status = 'scheduled', scheduled_at = now() + interval '4 seconds' WHERE id = %s", number
    )
    wait_until(lambda: around.state(number)["status"] == "published", 30, "it is published")
    row = around.state(number)
    assert 0 <= (row["published_at"] - row["scheduled_at"]).total_seconds() < 10


def test_redis_gives_the_queue_no_more_than_it_needs(around: Neighbours, queue: Box) -> None:
    post = around.due(STORES[0], "within its rights")
    wait_until(lambda: around.state(post)["status"] == "published", 60, "it is published")
    assert redis(around, "ACL LOG", "default").strip() == "", "Celery wants more than it may"
    for words in FORBIDDEN:
        assert "NOPERM" in redis(around, words), words
    redis(around, "ACL LOG RESET", "default")


def age(box: Box) -> float:
    """The seconds since it was started."""
    return (datetime.now(UTC) - datetime.fromisoformat(box.container.attrs["State"]["StartedAt"])).total_seconds()


def impatient(seconds: int) -> pytest.MarkDecorator:
    """The queue hears nothing of its scheduler for so long and ends."""
    given = {"POSTING_SILENCE_SECONDS": str(seconds)}
    return pytest.mark.parametrize("queue", [given], indirect=True, ids=[f"{seconds} seconds"])


# Celery's own steps towards a Redis that is back are sixteen seconds by then: hardly more would not tell the two apart.
@impatient(30)
def test_queue_waits_for_redis(around: Neighbours, queue: Box) -> None:
    server = around.parts.parts["redis"]
    server.kill()
    # It looks ten times in those seconds.
    wait_until(lambda: queue.container.logs().count(b'"Redis: ') > 10, 120, "it has lost its patience")
    revive(server)
    post = around.due(STORES[0], "after Redis")
    wait_until(lambda: around.state(post)["status"] == "published", 60, "it is published")
    queue.container.reload()
    assert queue.container.attrs["State"]["Running"]
    assert "nothing was heard" not in queue.container.logs().decode()


def test_queue_goes_on_where_redis_went_while_all_its_hands_were_full(around: Neighbours, queue: Box) -> None:
    """What it could not acknowledge must not count as work that it still has."""
    server = around.parts.parts["redis"]
    around.control(trouble=[["publish", "hang_after"]] * 2)
    posts = [around.due(store, "while Redis goes") for store in STORES[:2]]
    wait_until(lambda: sum(call["trouble"] != "" for call in around.control()["calls"]) == 2, 30, "both are published")
    server.kill()

    def both_are_lost() -> bool:
        logs = queue.container.logs()
        return logs.count(b"Couldn't ack") >= 2 or b"Cannot connect" in logs

    try:
        wait_until(both_are_lost, 120, "neither can be acknowledged")
    finally:
        revive(server)
    posts.append(around.due(STORES[2], "after Redis"))
    wait_until(lambda: all(around.state(post)["status"] == "published" for post in posts), 60, "all are published")


@impatient(20)
def test_queue_whose_scheduler_has_died_ends(around: Neighbours, queue: Box) -> None:
    """So that Docker starts it again; it is the container's first process, which the kernel guards from itself."""
    wait_until(lambda: age(queue) > 24, 60, "its own rounds are what it hears")
    [scheduler] = queue.tool("cat", "/proc/1/task/1/children").split()
    queue.tool("python", "-c", f"import os; os.kill({scheduler}, 9)")
    assert queue.container.wait(timeout=60)["StatusCode"] == 1
    assert "nothing was heard of the scheduler for 20 s" in queue.container.logs().decode()
    queue.start()
    post = around.due(STORES[0], "after the silence")
    wait_until(lambda: around.state(post)["status"] == "published", 60, "it is published")


def test_killed_at_random_nothing_is_lost_and_nothing_doubled(around: Neighbours, queue: Box) -> None:
    around.control(rate=0.1)
    chance = random.Random(SEED)  # noqa: S311  # hides nothing
    captions: list[str] = []
    killed: Counter[str] = Counter()
    everybody = {"queue": queue, **{name: around.parts.parts[name] for name in ("postgres", "redis", "limiter")}}
    for cycle in range(CYCLES):
        # Others each time: an account may publish 100 in an hour.
        for store in itertools.islice(itertools.cycle(ACCOUNTS), 4 * cycle, 4 * cycle + 4):
            captions.append(f"{store} in cycle {cycle}")
            around.due(store, captions[-1])
        time.sleep(chance.uniform(0.5, 4))
        name = chance.choices(list(everybody), [5, 2, 2, 1])[0]
        killed[name] += 1
        everybody[name].kill()
        time.sleep(chance.uniform(0, 1))
        if name == "queue":
            everybody[name].start()
        else:
            revive(everybody[name])
        wait_until(lambda: answers(around), 60, "PostgreSQL is back")
    around.control(rate=0)

    def all_are_out() -> bool:
        # What waits after trouble is told that the time has come.
        around.sql("UPDATE shop.publications SET next_at = now() WHERE state = 'pending' AND next_at > now() + '9 s'")
        time.sleep(1)
        return not around.sql("SELECT id FROM shop.posts WHERE status <> 'published'")

    wait_until(all_are_out, 240, "all are published")
    published = Counter(one["caption"] for one in around.control()["media"])
    assert published == Counter(captions)
    print(f"{len(captions)} posts, {CYCLES} kills: {dict(killed)}")


def answers(around: Neighbours) -> bool:
    try:
        around.sql("SELECT 1")
    except Exception:
        return False
    return True
