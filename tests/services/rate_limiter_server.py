"""The real image of the rate limiter in a container, hardened as on the Pi, and a client for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from docker import DockerClient
from redis_server import RedisServer, address_of, build_service, start_container
from waiting import wait_until

SOURCE = Path(__file__).parents[2] / "files/services/rate_limiter"
IMAGE = "pi-commerce/rate_limiter:test"
CHECK = "/api/rate-limit/check"
PORT = 3001
# What the owner asked for, and some that suit tests.
POLICIES: dict[str, dict[str, Any]] = {
    "instagram": {"limit": 180, "window_seconds": 3600},
    "facebook": {"limit": 180, "window_seconds": 3600},
    "shopify": {"limit": 2, "window_seconds": 1},
    "gemini": {"limit": 60, "window_seconds": 60},
    "telegram": {"limit": 30, "window_seconds": 1},
    "five_a_second": {"limit": 5, "window_seconds": 1},
    "five_an_hour": {"limit": 5, "window_seconds": 3600},
    "closed": {"limit": 180, "window_seconds": 3600, "on_failure": "closed"},
}


def build_image(engine: DockerClient) -> None:
    """Build the image from its own Dockerfile on the local Python base."""
    build_service(engine, SOURCE, IMAGE)


class Answer(NamedTuple):
    """Status, headers (names in lower case) and body; ``json`` is the body read as an object."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


class Client:
    """One kept-alive connection to a rate limiter."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.connection = HTTPConnection(*address, timeout=10)

    def request(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Send one request; its answer, whatever its status."""
        self.connection.request(method, path, body)
        response = self.connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def ask(self, api: str, key: str = "", cost: int = 1) -> Answer:
        """One check by POST."""
        return self.request("POST", CHECK, json.dumps({"api": api, "key": key, "cost": cost}).encode())

    def check(self, api: str, key: str = "", cost: int = 1) -> dict[str, object]:
        """One check by POST that must be answered with 200."""
        answer = self.ask(api, key, cost)
        assert answer.status == 200, answer
        return answer.json

    def metrics(self) -> dict[str, float]:
        """Every series of /metrics, by name and labels."""
        text = self.request("GET", "/metrics").body.decode()
        lines = re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)
        return {series: float(value) for series, value in lines}


class RateLimiter:
    """One container of the service."""

    def __init__(
        self,
        engine: DockerClient,
        redis: RedisServer,
        directory: Path,
        *,
        policies: str,
        password: str,
        environment: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
    ) -> None:
        """Start it with the text of its policies file and its password for Redis; it is not awaited.

        Where there are ``tokens``, by caller, nobody else is answered.
        """
        files = {
            "/etc/rate_limiter/policies.json": policies,
            "/run/secrets/redis_rate_limiter_password": password,
        }
        given = dict(environment or {})
        if tokens:
            given["RATE_LIMITER_CALLERS"] = "/run/secrets/rate_limiter_callers"
            digests = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in tokens.items()}
            files["/run/secrets/rate_limiter_callers"] = json.dumps({"callers": digests})
        volumes = {}
        for number, (target, text) in enumerate(files.items()):
            source = directory / str(number)
            source.write_text(text)
            source.chmod(0o644)
            volumes[str(source)] = {"bind": target, "mode": "ro"}
        self.container = start_container(
            engine,
            IMAGE,
            None,
            network=redis.container.attrs["HostConfig"]["NetworkMode"],
            environment={"REDIS_HOST": redis.name, **given},
            volumes=volumes,
            tmpfs={"/tmp": "size=8m,mode=1777"},  # the tmpfs that Compose gives it
            mem_limit="128m",
            pids_limit=50,
        )

    def wait(self) -> None:
        """Return once it listens; Redis may still be away."""
        wait_until(lambda: address_of(self.container, PORT) is not None, 15, f"it listens; log: {self.log()}")

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A connection to where it is now."""
        address = address_of(self.container, PORT)
        assert address, self.log()
        client = Client(address)
        try:
            yield client
        finally:
            client.connection.close()

    def ready(self) -> None:
        """Wait until it has found Redis, too: it listens before that, and answers 503."""
        self.wait()
        wait_until(self.healthy, 10, "the limiter finds Redis")

    def healthy(self) -> bool:
        """Whether /health answers 200."""
        try:
            with self.client() as client:
                return client.request("GET", "/health").status == 200
        except (OSError, HTTPException):
            return False

    def log(self) -> str:
        """Everything it has written so far."""
        return str(self.container.logs().decode())

    def remove(self) -> None:
        """Remove the container."""
        self.container.remove(force=True, v=True)
