"""When something is wrong: Redis away, stalled, full or refusing; bad settings; where no password may be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from rate_limiter.errors import ConfigError
from rate_limiter.policies import MAX_LIMIT as LIMITS
from rate_limiter.policies import load_policies
from rate_limiter_server import POLICIES, Answer, RateLimiter
from redis_server import RedisServer
from waiting import wait_until

Start = Callable[..., RateLimiter]
MAX_LIMIT = LIMITS["log"]
GOOD = json.dumps({"policies": POLICIES})


@pytest.fixture
def start(engine: DockerClient, redis: RedisServer, limiter: RateLimiter, tmp_path: Path) -> Iterator[Start]:
    """Start a rate limiter of one's own (on the image built for ``limiter``); removed after the test."""
    started: list[RateLimiter] = []

    def run(policies: str = GOOD, password: str = redis.limiter_password, **environment: str) -> RateLimiter:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        server = RateLimiter(engine, redis, directory, policies=policies, password=password, environment=environment)
        started.append(server)
        return server

    yield run
    for server in started:
        server.remove()


def refused(limiter: RateLimiter, path: str) -> Answer:
    """Ask, and have 503 within a second, whatever Redis does."""
    with limiter.client() as client:
        began = time.monotonic()
        answer = client.request("GET", path)
        took = time.monotonic() - began
    assert answer.status == 503, answer
    assert answer.json["retry_after"] == 1
    assert answer.headers["retry-after"] == "1"
    assert "allowed" not in answer.json
    assert took < 1
    return answer


CHECK_ONE = "/api/rate-limit/check?api=closed"


def test_a_killed_redis_is_503_and_its_return_needs_no_restart(limiter: RateLimiter, redis: RedisServer) -> None:
    with limiter.client() as client:
        left = int(str(client.check("closed")["remaining"]))
        before = client.metrics()
    redis.container.kill()
    for path in (CHECK_ONE, "/health", CHECK_ONE):
        refused(limiter, path)
    redis.container.start()
    redis.wait()
    wait_until(limiter.healthy, 5, "the limiter finds Redis again")
    # Its scripts are gone with it, as are the counts of a Redis without a volume: the limiter still knows them.
    with limiter.client() as client:
        assert client.check("closed")["remaining"] == left - 1
        after = client.metrics()
    failed = 'rate_limiter_checks_total{api="closed",result="error"}'
    assert after[failed] - before[failed] == 2
    assert after["rate_limiter_redis_errors_total"] - before["rate_limiter_redis_errors_total"] >= 3


def test_a_stalled_redis_is_503_in_time(start: Start, redis: RedisServer) -> None:
    limiter = start()
    limiter.ready()
    redis.container.pause()
    try:
        for path in (CHECK_ONE, "/health"):
            refused(limiter, path)
    finally:
        redis.container.unpause()
    wait_until(limiter.healthy, 5, "the limiter finds Redis again")


def test_a_full_redis_allows_nothing(limiter: RateLimiter, redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "maxmemory", 1)
    try:
        refused(limiter, CHECK_ONE)
    finally:
        redis.command("CONFIG", "SET", "maxmemory", 0)
    with limiter.client() as client:
        assert "degraded" not in client.check("closed")


def test_what_is_known_is_answered_without_redis(limiter: RateLimiter, redis: RedisServer, tenant: str) -> None:
    with limiter.client() as client:
        client.check("five_an_hour", tenant, 3)
        redis.container.pause()
        try:
            alone = client.check("five_an_hour", tenant, 2)
            assert (alone["allowed"], alone["remaining"], alone["degraded"]) == (True, 0, True)
            assert client.check("five_an_hour", tenant)["allowed"] is False
        finally:
            redis.container.unpause()
        wait_until(limiter.healthy, 5, "the limiter finds Redis again")
        assert client.check("five_an_hour", tenant)["allowed"] is False
    wait_until(lambda: len(redis.numbers(f"rl:five_an_hour:{tenant}")) >= 5, 5, "it is written back")


def test_a_script_that_redis_forgot_is_loaded_again(limiter: RateLimiter, redis: RedisServer) -> None:
    with limiter.client() as client:
        client.check("instagram")
        redis.command("SCRIPT", "FLUSH")
        client.check("instagram")


def test_it_starts_before_redis_and_allows_nothing_until_then(start: Start) -> None:
    limiter = start(REDIS_HOST="not-there-yet")
    limiter.wait()
    refused(limiter, "/health")
    refused(limiter, CHECK_ONE)


def test_with_a_wrong_password_it_allows_nothing_and_says_so_once(start: Start) -> None:
    wrong = "a-wrong-password-for-redis"
    limiter = start(password=wrong)
    limiter.wait()
    refused(limiter, "/health")
    refused(limiter, CHECK_ONE)
    errors = [line for line in map(json.loads, limiter.log().splitlines()) if line["level"] == "error"]
    assert len(errors) == 1, "one line when Redis goes away, not one per check"
    assert "invalid username-password pair" in errors[0]["message"]
    assert wrong not in limiter.log()


def test_its_user_in_redis_may_do_all_that_it_asks(start: Start, redis: RedisServer) -> None:
    redis.command("ACL", "LOG", "RESET")
    redis.command("SCRIPT", "FLUSH")
    limiter = start()
    limiter.ready()
    with limiter.client() as client:
        client.check("instagram")
        client.request("GET", "/health")
    assert redis.command("ACL", "LOG") == [], "Redis refused a command"


def test_the_password_is_in_no_log_and_no_inspection(limiter: RateLimiter, redis: RedisServer) -> None:
    limiter.container.reload()
    assert redis.limiter_password not in json.dumps(limiter.container.attrs)
    assert redis.limiter_password not in limiter.log()
    assert redis.limiter_password not in json.dumps(limiter.container.top())


def test_requests_are_not_logged(limiter: RateLimiter, tenant: str) -> None:
    with limiter.client() as client:
        client.check("instagram", tenant)
    assert tenant not in limiter.log()
    assert all(json.loads(line)["message"] for line in limiter.log().splitlines())


BAD_SETTINGS = {
    "policies": (
        {"policies": '{"policies": {"shop": {"limit": 0, "window_seconds": 1}}}'},
        "policies.shop.limit",
    ),
    "secret": ({"REDIS_PASSWORD_FILE": "/run/secrets/none"}, "REDIS_PASSWORD_FILE: /run/secrets/none"),
    "empty secret": (
        {"password": "\n"},
        "REDIS_PASSWORD_FILE: /run/secrets/redis_rate_limiter_password is empty",
    ),
    "port": ({"RATE_LIMITER_PORT": "0"}, "RATE_LIMITER_PORT"),
    "timeout": ({"REDIS_TIMEOUT": "nan"}, "REDIS_TIMEOUT"),
}


@pytest.mark.parametrize(("settings", "named"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_it_refuses_to_start_with_a_bad_setting(start: Start, settings: dict[str, str], named: str) -> None:
    limiter = start(**settings)
    assert limiter.container.wait(timeout=15)["StatusCode"] == 2
    [line] = limiter.log().splitlines()
    assert json.loads(line)["level"] == "critical"
    assert named in json.loads(line)["message"]


BAD_POLICIES = {
    "no JSON": ("{", "not valid JSON"),
    "a key twice": (
        '{"policies": {"a": {"limit": 1, "limit": 2, "window_seconds": 1}}}',
        "'limit' stands twice",
    ),
    "no object": ("[]", "the document: expected an object"),
    "no policies": ("{}", "the document: missing key policies"),
    "empty policies": ('{"policies": {}}', "policies: expected an object with at least one API"),
    "unknown top key": ('{"policies": {}, "polices": {}}', "the document: unknown key polices"),
    "bad name": ('{"policies": {"Shop:1": {}}}', "policies.Shop:1: a name is"),
    "policy no object": ('{"policies": {"a": 5}}', "policies.a: expected an object"),
    "missing key": ('{"policies": {"a": {"limit": 5}}}', "policies.a: missing key window_seconds"),
    "unknown key": (
        '{"policies": {"a": {"limit": 5, "window_seconds": 1, "burst": 2}}}',
        "policies.a: unknown key burst",
    ),
    "algorithm": ('{"policies": {"a": {"limit": 5, "algorithm": "luck"}}}', "policies.a.algorithm: expected one of"),
    "also": ('{"policies": {"a": {"limit": 5, "window_seconds": 1, "also": 5}}}', "policies.a.also: expected a list"),
    "window twice": (
        '{"policies": {"a": {"limit": 5, "window_seconds": 1, "also": ['
        '{"limit": 1, "window_seconds": 2}, {"limit": 3, "window_seconds": 2}]}}}',
        "policies.a.also[1]: counts by the same",
    ),
    "time zone": (
        '{"policies": {"a": {"algorithm": "calendar", "limit": 5, "period": "day", "time_zone": "Mars"}}}',
        "policies.a.time_zone: expected a name",
    ),
    "period": (
        '{"policies": {"a": {"algorithm": "calendar", "limit": 5, "period": "moon", "time_zone": "UTC"}}}',
        "policies.a.period: expected one of hour, day",
    ),
    "on_failure": (
        '{"policies": {"a": {"limit": 5, "window_seconds": 1, "on_failure": "pray"}}}',
        "policies.a.on_failure: expected one of local",
    ),
    "shadow": ('{"policies": {"a": {"limit": 5, "window_seconds": 1, "shadow": 1}}}', "policies.a.shadow: expected"),
    "limit 0": ('{"policies": {"a": {"limit": 0, "window_seconds": 1}}}', "policies.a.limit: expected"),
    "limit too high": (
        f'{{"policies": {{"a": {{"limit": {MAX_LIMIT + 1}, "window_seconds": 1}}}}}}',
        f"policies.a.limit: expected a whole number 1..{MAX_LIMIT}",
    ),
    "limit true": ('{"policies": {"a": {"limit": true, "window_seconds": 1}}}', "policies.a.limit: expected"),
    "limit as text": (
        '{"policies": {"a": {"limit": "5", "window_seconds": 1}}}',
        "policies.a.limit: expected",
    ),
    "window 0": (
        '{"policies": {"a": {"limit": 5, "window_seconds": 0}}}',
        "policies.a.window_seconds: expected",
    ),
    "window with a fraction": (
        '{"policies": {"a": {"limit": 5, "window_seconds": 0.5}}}',
        "policies.a.window_seconds: expected",
    ),
}


@pytest.mark.parametrize(("text", "says"), BAD_POLICIES.values(), ids=BAD_POLICIES.keys())
def test_a_bad_policies_file_is_refused_naming_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "policies.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_policies(file)
    assert str(refusal.value).startswith(f"{file}: ")
    assert says in str(refusal.value)


def test_a_missing_policies_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read: .*Set RATE_LIMITER_POLICIES"):
        load_policies(tmp_path / "absent.json")


def test_the_highest_limit_can_be_taken_at_once(start: Start, tenant: str) -> None:
    limiter = start(json.dumps({"policies": {"big": {"limit": MAX_LIMIT, "window_seconds": 60}}}))
    limiter.ready()
    with limiter.client() as client:
        assert client.check("big", tenant, MAX_LIMIT)["remaining"] == 0
        assert client.check("big", tenant)["allowed"] is False
