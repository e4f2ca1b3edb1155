"""The webhook handler with its real neighbours, each of which can be killed and started again.

As containers on a network of their own, hardened as on the Pi, the handler from its own image.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import docker
from docker import DockerClient
from redis_server import LABELS, address_of, build_service, image_of, start_container, users
from requests.exceptions import ReadTimeout
from waiting import wait_until

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "files/services/webhook_handler"
SCHEMA = ROOT / "files/schema"
IMAGE = "pi-commerce/webhook_handler:test"
PASSWORD = secrets.token_urlsafe(12)
PORTS = {"postgres": 5432, "redis": 6379, "handler": 3002, "consumer": 3003, "limiter": 3001, "provider": 8080}
CONSUMER = Path(__file__).with_name("intake_consumer.py")

# One secret of each; shopify's is being changed.
SECRETS = {
    "shopify": ["shopify-secret-new", "shopify-secret-old"],
    "stripe": ["whsec_stripe-secret"],
    "shipping": ["shipping-secret"],
    "telegram": ["telegram_secret-token"],
    "meta": ["meta-app-secret"],
    "custom": ["custom-secret", "whsec_Y3VzdG9tLW9sZC1zZWNyZXQ="],
    "custom/second": ["custom-second-secret"],
}
ADMIN = "admin-token-of-the-tests"
SETTINGS: dict[str, Any] = {
    "endpoints": {
        **{name: {} for name in SECRETS},
        "paypal": {"webhook_id": "WH-TEST"},
        "custom/second": {"store": "second"},
        "telegram": {"max_body_bytes": 4096},
    },
    "consumers": {
        "shop": {"url": "", "concurrency": 8, "timeout_seconds": 3},
    },
    "routes": [
        {"endpoint": "custom", "topics": ["*"], "consumers": ["shop"]},
        {"endpoint": "custom/second", "topics": ["*"], "consumers": ["shop"]},
        {"endpoint": "shopify", "topics": ["orders/*"], "consumers": ["shop"]},
    ],
}


def psql_words(variables: Mapping[str, str]) -> list[str]:
    given = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
    return ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *given, "-U", "postgres", "-d", "shop"]


class Box:
    """A container."""

    def __init__(self, engine: DockerClient, image: str, port: int, command: list[str] | None, **options: Any) -> None:
        self._port, self._command = port, command
        self.container = start_container(engine, image, command, **options)

    def start(self) -> None:
        self.container.start()

    def address(self) -> tuple[str, int] | None:
        try:
            return address_of(self.container, self._port)
        except ValueError:
            return None

    def kill(self) -> None:
        # Where the process ended by itself at that moment, Docker 20.10 may never answer; that it ended is asked below.
        with contextlib.suppress(docker.errors.APIError, ReadTimeout):
            self.container.kill("SIGKILL")
        self.container.wait(timeout=20)

    def remove(self) -> None:
        self.container.remove(force=True, v=True)

    def run(self, *words: str) -> tuple[int, str]:
        code, output = self.container.exec_run(["python", "-m", "webhook_handler", *words])
        return int(code), str(output.decode())

    def tool(self, *words: str) -> str:
        login = {"PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1"}
        code, output = self.container.exec_run(list(words), environment=login)
        assert code == 0, output.decode()
        return str(output.decode())

    def psql(self, script: str, **variables: str) -> str:
        self.tool("sh", "-c", 'printf %s "$0" > /tmp/script.sql', script)
        return self.tool(*psql_words(variables), "-f", "/tmp/script.sql")

    def resident_mib(self) -> float:
        code, output = self.container.exec_run(["grep", "VmRSS", "/proc/1/status"])
        assert code == 0, output.decode()
        return int(output.decode().split()[1]) / 1024


class Parts:
    """PostgreSQL with the shop's schema, Redis, a consumer and the handler, on a network of their own."""

    def __init__(
        self, engine: DockerClient, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        self._folder, self._settings, self._more = folder, settings, environment
        self.parts: dict[str, Box] = {}
        # With the users as they are shipped, so that what they may do is what is tried.
        names = ("admin", "backup", "rate_limiter", "webhook_handler", "posting_queue")
        acl = folder / "users.acl"
        acl.write_text(users(**{f"redis_{name}_password": PASSWORD for name in names}))
        acl.chmod(0o644)
        folder.chmod(0o755)
        self.engine = engine
        self._name = f"pi-commerce-test-{secrets.token_hex(4)}"
        self._network = engine.networks.create(self._name, internal=True, labels=LABELS)
        postgres = {
            "environment": {"POSTGRES_PASSWORD": PASSWORD},
            "user": "999:999",
            "tmpfs": {"/var/run/postgresql": "uid=999,gid=999", "/tmp": ""},
            "shm_size": "128m",
        }
        # The data lies in a volume of the image: it outlives a kill.
        self.add("postgres", self.box("postgres", image_of(engine, "postgres"), None, **postgres))
        wait_until(lambda: self._answers(), 60, "PostgreSQL is ready")
        redis = ["valkey-server", "--dir", "/data", "--appendonly", "yes", "--save", "", "--aclfile", "/users.acl"]
        options = {"user": "999:1000", "volumes": {str(folder / "users.acl"): {"bind": "/users.acl", "mode": "ro"}}}
        self.add("redis", self.box("redis", image_of(engine, "valkey"), redis, **options))

    def host(self, name: str) -> tuple[str, int]:
        """Where the others find a part."""
        return f"{self._name}-{name}", PORTS[name]

    def add(self, name: str, part: Box, seconds: float = 60) -> Box:
        self.parts[name] = part
        wait_until(lambda: part.address() is not None, seconds, f"{name} listens")
        return part

    def dsn(self, user: str = "shop", inside: bool = False) -> str:
        address = self.host("postgres") if inside else self.parts["postgres"].address()
        assert address
        return f"postgresql://{user}:{PASSWORD}@{address[0]}:{address[1]}/shop"

    def redis_url(self) -> str:
        address = self.parts["redis"].address()
        assert address
        return f"redis://{address[0]}:{address[1]}/0"

    def handler_environment(self, folder: str) -> dict[str, str]:
        postgres, redis = self.host("postgres"), self.host("redis")
        return {
            "WEBHOOK_SETTINGS": f"{folder}/settings.json",
            "WEBHOOK_SECRETS": f"{folder}/secrets.json",
            "POSTGRES_HOST": postgres[0],
            "POSTGRES_PORT": str(postgres[1]),
            "POSTGRES_PASSWORD_FILE": f"{folder}/password",
            "REDIS_HOST": redis[0],
            "REDIS_PORT": str(redis[1]),
            "REDIS_USER": "webhook_handler",
            "REDIS_PASSWORD_FILE": f"{folder}/password",
            "RATE_LIMITER_URL": "",
            **self._more,
        }

    def write_settings(self) -> None:
        host, port = self.host("consumer")
        settings = json.loads(json.dumps(self._settings))
        for consumer in settings["consumers"].values():
            if not consumer.get("url") and consumer.get("kind", "http") == "http":
                consumer["url"] = f"http://{host}:{port}/consume"
        given = {
            "admin": ADMIN,
            "endpoints": {name: {"secrets": words, "token": "verify-me"} for name, words in SECRETS.items()},
        }
        for name, content in (
            ("settings.json", json.dumps(settings)),
            ("secrets.json", json.dumps(given)),
            ("password", PASSWORD),
        ):
            path = self._folder / name
            path.write_text(content)
            path.chmod(0o644)

    def _answers(self) -> bool:
        return bool(self.parts["postgres"].container.exec_run(["pg_isready", "-qh", "127.0.0.1"]).exit_code == 0)

    def box(self, name: str, image: str, command: list[str] | None, **options: Any) -> Box:
        """A container on this network; it listens where PORTS says."""
        return Box(self.engine, image, PORTS[name], command, name=f"{self._name}-{name}", network=self._name, **options)

    def start(self, weak: float) -> None:
        self.write_settings()
        build_service(self.engine, SOURCE, IMAGE)
        ours = {
            "tmpfs": {"/tmp": "size=8m,mode=1777"},
            "mem_limit": "256m",
            "pids_limit": 50,
            "volumes": {
                str(self._folder): {"bind": "/settings", "mode": "ro"},
                str(CONSUMER): {"bind": "/consumer.py", "mode": "ro"},
            },
        }
        effects = {"EFFECTS": self.dsn(inside=True), "HOST": "0.0.0.0", "PORT": "3003", "WEAK": str(weak)}  # noqa: S104
        self.add("consumer", self.box("consumer", IMAGE, ["python", "/consumer.py"], environment=effects, **ours))
        environment = self.handler_environment("/settings")
        self.add("handler", self.box("handler", IMAGE, None, environment=environment, **ours))

    def remove(self) -> None:
        for part in reversed(self.parts.values()):
            part.remove()
        self._network.remove()


def revive(part: Box, seconds: float = 60) -> None:
    """Start a part that was killed, and again where it could not yet, as Docker's restart policy does."""
    deadline = time.monotonic() + seconds
    part.start()
    while time.monotonic() < deadline:
        for _ in range(50):
            if part.address():
                return
            time.sleep(0.1)
        part.kill()
        part.start()
    raise AssertionError(f"{part} did not come back within {seconds} s")


AfterFirst = Callable[[Any], Awaitable[None]]


def migrate(parts: Parts, after_first: AfterFirst | None = None) -> None:
    """Apply the shop's schema as its owner, as the module of role schema does; ``after_first`` between two files."""

    async def apply() -> None:
        address = parts.parts["postgres"].address()
        assert address
        login = {"host": address[0], "port": address[1], "password": PASSWORD}
        connection = await asyncpg.connect(user="postgres", database="postgres", **login)
        await connection.execute(f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'")
        await connection.execute("CREATE DATABASE shop OWNER shop")
        await connection.close()
        connection = await asyncpg.connect(user="shop", database="shop", **login)
        for number, file in enumerate(sorted((SCHEMA / "shop").glob("*.sql"))):
            async with connection.transaction():
                await connection.execute(file.read_text())
            if after_first and number == 0:
                await after_first(connection)
        await connection.close()

    asyncio.run(apply())


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    weak: float = 0,
    settings: Mapping[str, Any] = SETTINGS,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Parts]:
    """All parts, up and answering; nothing of them stays behind."""
    with database(folder, settings=settings, environment=environment) as parts:
        parts.start(weak)
        yield parts


@contextlib.contextmanager
def database(
    folder: Path,
    *,
    settings: Mapping[str, Any] = SETTINGS,
    environment: Mapping[str, str] | None = None,
    after_first: AfterFirst | None = None,
) -> Iterator[Parts]:
    """PostgreSQL with the schema, and Redis."""
    parts = Parts(docker.from_env(), folder, settings, environment or {})
    try:
        wait_until(lambda: _migrated(parts, after_first), 60, "the schema is applied")
        yield parts
    finally:
        parts.remove()


def _migrated(parts: Parts, after_first: AfterFirst | None) -> bool:
    """PostgreSQL listens a moment before it answers."""
    try:
        migrate(parts, after_first)
    except (ConnectionRefusedError, ConnectionResetError, asyncpg.CannotConnectNowError):
        return False
    return True
