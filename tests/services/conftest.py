"""One Redis and one rate limiter for all tests; each test counts under a tenant of its own."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from backup_shop import FOLDER, Shop
from docker import DockerClient
from notify_host import NotifyHost
from rate_limiter_server import POLICIES, SOURCE, Client, RateLimiter, build_image
from redis_server import LABELS, RedisServer

# The service's own modules, for tests that need no container.
sys.path.insert(0, str(SOURCE))

from limiter_harness import Bench
from local_redis import LocalRedis


@pytest.fixture(scope="session")
def local_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """One Redis on the loopback for all tests that do it no harm."""
    server = LocalRedis(tmp_path_factory.mktemp("local-redis"))
    yield server
    server.remove()


@pytest.fixture
def frail_redis(tmp_path: Path) -> Iterator[LocalRedis]:
    """One for a test that stalls or kills it."""
    server = LocalRedis(tmp_path)
    yield server
    server.resume()
    server.remove()


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "two-workers"])
def limiter_bench(request: pytest.FixtureRequest, local_redis: LocalRedis) -> Iterator[Bench]:
    """Limiters on a clock of our own making."""
    with pytest.MonkeyPatch.context() as patch:
        bench = Bench(local_redis, patch, instances=request.param)
        yield bench
        bench.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def redis(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    name = f"pi-commerce-test-{secrets.token_hex(4)}"
    network = engine.networks.create(name, internal=True, labels=LABELS)
    try:
        server = RedisServer(engine, name, tmp_path_factory.mktemp("redis"))
        try:
            yield server
        finally:
            server.remove()
    finally:
        network.remove()


@pytest.fixture(scope="session")
def limiter(
    engine: DockerClient, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RateLimiter]:
    build_image(engine)
    server = RateLimiter(
        engine,
        redis,
        tmp_path_factory.mktemp("rate_limiter"),
        policies=json.dumps({"policies": POLICIES}),
        password=redis.limiter_password,
    )
    try:
        server.ready()
        yield server
    finally:
        server.remove()


@pytest.fixture
def client(limiter: RateLimiter) -> Iterator[Client]:
    with limiter.client() as connection:
        yield connection


@pytest.fixture
def tenant() -> str:
    """A key that no other test uses."""
    return secrets.token_hex(8)


@pytest.fixture
def shop(saved_shop: Shop) -> Shop:
    """A shop that has been saved; what other tests have removed from its volumes is not missed."""
    saved_shop.shell(f"rm -f {FOLDER}/state/sizes.json")
    return saved_shop


@pytest.fixture(scope="session")
def saved_shop(engine: DockerClient) -> Iterator[Shop]:
    """A shop that has been saved once, with a base."""
    made = Shop(engine)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def notify_host(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotifyHost]:
    """A machine with the notify program; each test makes it fresh."""
    made = NotifyHost(engine, tmp_path_factory.mktemp("remote"))
    try:
        yield made
    finally:
        made.remove()


FAULTS = pytest.StashKey[list[tuple[str, str, str]]]()
INTAKE = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def fault_table(pytestconfig: pytest.Config) -> list[tuple[str, str, str]]:
    """What was wrong, the verdict of the drill, and what has named it: printed at the end."""
    return pytestconfig.stash.setdefault(FAULTS, [])


@pytest.fixture(scope="session")
def intake_table(pytestconfig: pytest.Config) -> list[str]:
    """What was killed, and what came of the webhooks: printed at the end."""
    return pytestconfig.stash.setdefault(INTAKE, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash.get(FAULTS, [])
    if rows:
        terminalreporter.section("what was wrong, and what a drill said")
    for fault, verdict, named in rows:
        terminalreporter.write_line(f"{fault:<42} {verdict:<17} {' '.join(named.split())[:100]}")
    lines = terminalreporter.config.stash.get(INTAKE, [])
    if lines:
        terminalreporter.section("webhooks, while programs were killed")
    for line in lines:
        terminalreporter.write_line(line)
