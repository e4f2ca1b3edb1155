"""The webhook handler with its real neighbours, each of which can be killed and started again.

As containers, hardened as on the Pi, the handler from its own image. Where INTAKE_PROGRAMS names a folder with the
programs of PostgreSQL and INTAKE_REDIS a redis-server, they are processes of this computer instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import docker
from docker import DockerClient
from redis_server import LABELS, address_of, build_service, image_of, start_container, users
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


class Part(Protocol):
    """One program."""

    def address(self) -> tuple[str, int] | None:
        """Where it listens; None while it does not."""

    def start(self) -> None:
        """Start it, also again."""

    def kill(self) -> None:
        """End it as a power cut does."""

    def remove(self) -> None:
        """End it for good."""

    def run(self, *words: str) -> tuple[int, str]:
        """Run the handler's program once more with other arguments; exit code and output."""

    def tool(self, *words: str) -> str:
        """The output of a program that lies beside it, such as PostgreSQL's pgbench."""

    def psql(self, script: str, **variables: str) -> str:
        """The output of psql, as the superuser, with a script on its standard input."""

    def resident_mib(self) -> float:
        """Memory that it has in use."""


def psql_words(variables: Mapping[str, str]) -> list[str]:
    given = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
    return ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *given, "-U", "postgres", "-d", "shop"]


class Process:
    """A process of this computer, with all that it starts."""

    def __init__(self, command: Sequence[str], port: int, environment: Mapping[str, str], user: str | None) -> None:
        self._command, self._port, self._user = list(command), port, user
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        identity: dict[str, Any] = {}
        if self._user and os.getuid() == 0:
            identity = {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}
        self._process = subprocess.Popen(
            ["nice", "-n", os.environ.get("INTAKE_NICE", "0"), *self._command],
            env=self._environment,
            start_new_session=True,
            stdout=None if os.environ.get("INTAKE_SHOW") else subprocess.DEVNULL,
            stderr=None if os.environ.get("INTAKE_SHOW") else subprocess.DEVNULL,
            **identity,
        )

    def address(self) -> tuple[str, int] | None:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return None
        return "127.0.0.1", self._port

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        if not self._process:
            return
        pid = self._process.pid
        with contextlib.suppress(OSError):
            # PostgreSQL's are in no group of its own, and it does not start beside those that are left.
            children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            os.killpg(pid, signal.SIGKILL)
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        self._process.wait()

    def remove(self) -> None:
        self.kill()

    def run(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            [*self._command, *words], env=self._environment, capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def tool(self, *words: str, given: str = "") -> str:
        program = Path(os.environ["INTAKE_PROGRAMS"]) / words[0]
        nice = ["nice", "-n", os.environ.get("INTAKE_NICE", "0")]
        done = subprocess.run(
            [*nice, str(program), *words[1:]],
            env={**os.environ, "PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1", "PGPORT": str(self._port)},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def psql(self, script: str, **variables: str) -> str:
        return self.tool(*psql_words(variables), given=script)

    def resident_mib(self) -> float:
        [line] = [text for text in Path(f"/proc/{self.pid}/status").read_text().splitlines() if "VmRSS" in text]
        return int(line.split()[1]) / 1024


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
        with contextlib.suppress(docker.errors.APIError):
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
    """PostgreSQL with the shop's schema, Redis, a consumer and the handler."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._folder, self._settings, self._more = folder, settings, environment
        self.parts: dict[str, Part] = {}
        # With the users as they are shipped, so that what they may do is what is tried.
        names = ("admin", "backup", "rate_limiter", "webhook_handler", "posting_queue")
        acl = folder / "users.acl"
        acl.write_text(users(**{f"redis_{name}_password": PASSWORD for name in names}))
        acl.chmod(0o644)

    def host(self, name: str) -> tuple[str, int]:
        """Where the others find a part."""
        raise NotImplementedError

    def add(self, name: str, part: Part, seconds: float = 60) -> Part:
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

    def remove(self) -> None:
        for part in reversed(self.parts.values()):
            part.remove()


class LocalParts(Parts):
    """Processes on loopback ports."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        super().__init__(folder, settings, environment)
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        programs = Path(os.environ["INTAKE_PROGRAMS"])
        data = folder / "postgres"
        data.mkdir()
        folder.chmod(0o755)
        user = "postgres" if os.getuid() == 0 else None
        if user:
            shutil.chown(data, user, user)
            # The folders above it are the test's alone.
            for above in folder.parents:
                if str(above).startswith("/tmp/pytest"):
                    above.chmod(0o755)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        made = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "scram-sha-256"]
        pwfile = f"--pwfile={folder / 'password'}"
        subprocess.run([*made, pwfile], check=True, capture_output=True, user=user)
        port = str(self._ports["postgres"])
        server = [str(programs / "postgres"), "-D", str(data), "-p", port, "-k", str(data), "-c", "max_connections=60"]
        self.add("postgres", Process(server, self._ports["postgres"], {}, user))
        self.add(
            "redis",
            Process(
                [
                    os.environ["INTAKE_REDIS"],
                    *("--port", str(self._ports["redis"]), "--bind", "127.0.0.1", "--dir", str(folder)),
                    *("--appendonly", "yes", "--save", "", "--aclfile", str(folder / "users.acl")),
                ],
                self._ports["redis"],
                {},
                None,
            ),
        )

    def host(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", self._ports[name]

    def start(self, weak: float) -> None:
        self.write_settings()
        consumer = {"EFFECTS": self.dsn(), "HOST": "127.0.0.1", "PORT": str(self._ports["consumer"]), "WEAK": str(weak)}
        python = [sys.executable]
        self.add("consumer", Process([*python, str(CONSUMER)], self._ports["consumer"], consumer, None))
        environment = {
            **self.handler_environment(str(self._folder)),
            "WEBHOOK_HOST": "127.0.0.1",
            "WEBHOOK_PORT": str(self._ports["handler"]),
            "PYTHONPATH": str(SOURCE),
        }
        handler = Process([*python, "-m", "webhook_handler"], self._ports["handler"], environment, None)
        self.add("handler", handler)


class BoxedParts(Parts):
    """Containers on a network of their own."""

    def __init__(
        self, engine: DockerClient, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        super().__init__(folder, settings, environment)
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

    def _answers(self) -> bool:
        box = self.parts["postgres"]
        assert isinstance(box, Box)
        return bool(box.container.exec_run(["pg_isready", "-qh", "127.0.0.1"]).exit_code == 0)

    def box(self, name: str, image: str, command: list[str] | None, **options: Any) -> Box:
        """A container on this network; it listens where PORTS says."""
        return Box(self.engine, image, PORTS[name], command, name=f"{self._name}-{name}", network=self._name, **options)

    def host(self, name: str) -> tuple[str, int]:
        return f"{self._name}-{name}", PORTS[name]

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
        super().remove()
        self._network.remove()


def revive(part: Part, seconds: float = 60) -> None:
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


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [held.getsockname()[1] for held in sockets]


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
) -> Iterator[LocalParts | BoxedParts]:
    """PostgreSQL with the schema, and Redis."""
    parts: LocalParts | BoxedParts
    if "INTAKE_PROGRAMS" in os.environ:
        parts = LocalParts(folder, settings, environment or {})
    else:
        parts = BoxedParts(docker.from_env(), folder, settings, environment or {})
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
