"""Who is around the posting queue: PostgreSQL with the shop's schema, Valkey, the rate limiter, and an Instagram."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import psycopg
import rate_limiter_server
from intake_parts import PASSWORD, ROOT, Box, Parts, database
from posting_queue.config import Account, Config
from posting_queue.limiter import RateLimiterClient
from posting_queue.publisher import Publisher
from posting_queue.store import Store
from psycopg.rows import dict_row
from redis_server import build_service

SOURCE = ROOT / "files/services/posting_queue"
IMAGE = "pi-commerce/posting_queue:test"
PROVIDER = Path(__file__).with_name("posting_provider.py")
# A store and an account for each test.
ACCOUNTS = {f"store-{number}": str(17_841_400_000_000_000 + number) for number in range(120)}
TOKENS = {store: f"token-of-{store}" for store in ACCOUNTS}
POLICIES = {
    "instagram": {"limit": 5000, "window_seconds": 3600},
    "instagram_publishing": {"limit": 100, "window_seconds": 3600},
}
SETTINGS: dict[str, Any] = {
    "graph_url": "",
    "zone": "Europe/Berlin",
    "accounts": ACCOUNTS,
    "schedule": {
        "instagram": {"times": ["09:00", "14:00", "19:00"]},
        "instagram_story": {"every_hours": 3, "posts": 4},
    },
}
FORGET = "TRUNCATE shop.publications, shop.posts, shop.experiments, shop.metrics, shop.api_calls"
_POST = """
INSERT INTO shop.posts (store_id, channel, caption, media_url, confidence, status, scheduled_at, variant, experiment_id)
SELECT id, %(channel)s, %(caption)s, %(media_url)s, %(confidence)s, %(status)s, %(scheduled_at)s, %(variant)s,
    %(experiment)s
FROM shop.stores WHERE name = %(store)s RETURNING id
"""


class Neighbours:
    """All of them, in containers on a network of their own."""

    def __init__(self, parts: Parts, folder: Path) -> None:
        self.parts, self._folder = parts, folder
        self._stores = itertools.cycle(ACCOUNTS)
        # The processes of the containers have other users than this one.
        for name, content in {
            "policies.json": json.dumps({"policies": POLICIES}),
            "settings.json": json.dumps({**SETTINGS, "graph_url": self._url("provider", inside=True)}),
            "outside.json": "{}",
            "tokens.json": json.dumps(TOKENS),
            "password": PASSWORD,
        }.items():
            (folder / name).write_text(content)
            (folder / name).chmod(0o644)
        host, port = parts.host("redis")
        limiter = {
            "REDIS_HOST": host,
            "REDIS_PORT": str(port),
            "REDIS_PASSWORD_FILE": "/settings/password",
            "RATE_LIMITER_POLICIES": "/settings/policies.json",
            # How long Redis may take on a busy computer is not what is tried here.
            "REDIS_TIMEOUT": "2",
        }
        parts.add("limiter", self.box("limiter", rate_limiter_server.IMAGE, None, limiter))
        known = [f"{ACCOUNTS[store]}={token}" for store, token in TOKENS.items()]
        serve = ["python", "/provider.py", "0.0.0.0", "8080", *known]  # noqa: S104  # of its own network
        parts.add("provider", self.box("provider", IMAGE, serve, {}))
        (folder / "outside.json").write_text(json.dumps({**SETTINGS, "graph_url": self._url("provider")}))
        self.sql("INSERT INTO shop.stores (name) SELECT unnest(%s::text[])", list(ACCOUNTS))

    def box(self, name: str, image: str, command: list[str] | None, environment: Mapping[str, str]) -> Box:
        """A container of one of our images, hardened as on the Pi."""
        return self.parts.box(
            name,
            image,
            command,
            environment=dict(environment),
            tmpfs={"/tmp": "size=8m,mode=1777"},
            mem_limit="192m",
            pids_limit=50,
            volumes={
                str(self._folder): {"bind": "/settings", "mode": "ro"},
                str(PROVIDER): {"bind": "/provider.py", "mode": "ro"},
            },
        )

    def environment(self, inside: bool = False) -> dict[str, str]:
        """What the queue is told; ``inside`` for a container, else for this process."""
        folder = "/settings" if inside else str(self._folder)
        found = {name: self._host(name, inside) for name in ("postgres", "redis")}
        return {
            "POSTING_SETTINGS": f"{folder}/{'settings' if inside else 'outside'}.json",
            "POSTING_SECRETS": f"{folder}/tokens.json",
            "POSTGRES_HOST": found["postgres"][0],
            "POSTGRES_PORT": str(found["postgres"][1]),
            "POSTGRES_PASSWORD_FILE": f"{folder}/password",
            "REDIS_HOST": found["redis"][0],
            "REDIS_PORT": str(found["redis"][1]),
            "REDIS_PASSWORD_FILE": f"{folder}/password",
            "RATE_LIMITER_URL": self._url("limiter", inside).removesuffix("/v26.0"),
            "RATE_LIMITER_TOKEN_FILE": "",
            "POSTING_UNSURE_SECONDS": "0",
        }

    def config(self, **more: str) -> Config:
        """The settings of a queue in this process."""
        return Config.from_environment({**self.environment(), **more})

    def _host(self, name: str, inside: bool) -> tuple[str, int]:
        address = self.parts.host(name) if inside else self.parts.parts[name].address()
        assert address, name
        return address

    def _url(self, name: str, inside: bool = False) -> str:
        host, port = self._host(name, inside)
        return f"http://{host}:{port}/v26.0"

    def sql(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """The rows of a statement, of all stores."""
        options = "-c shop.store=*"
        with psycopg.connect(self.parts.dsn(), options=options, row_factory=dict_row) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def control(self, **changes: object) -> dict[str, Any]:
        """Tell the provider how to behave; all that it knows."""
        connection = HTTPConnection(*self._host("provider", inside=False), timeout=10)
        try:
            connection.request("POST", "/control", json.dumps(changes))
            known: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return known

    def media(self, caption: str) -> list[dict[str, Any]]:
        """What was published with a caption."""
        return [one for one in self.control()["media"] if one["caption"] == caption]

    def operations(self) -> list[str]:
        """The calls that the provider has had."""
        return [one["operation"] for one in self.control()["calls"]]

    def account(self) -> Account:
        """An account that no other test has."""
        store = next(self._stores)
        return Account(store, ACCOUNTS[store], TOKENS[store])

    def limiter(self) -> RateLimiterClient:
        """A client of the rate limiter."""
        return RateLimiterClient(self._url("limiter"))

    def post(self, store: str, caption: str, **fields: object) -> int:
        """Hand in a post; its number."""
        given = {
            "channel": "instagram",
            "media_url": "https://shop.example.com/mug.jpg",
            "confidence": 0.9,
            "status": "draft",
            "scheduled_at": None,
            "variant": "A",
            "experiment": None,
            **fields,
        }
        with psycopg.connect(self.parts.dsn(), options="-c shop.store=*") as connection:
            row = connection.execute(_POST, {**given, "store": store, "caption": caption}).fetchone()
        assert row
        return int(row[0])

    def due(self, store: str, caption: str, **fields: object) -> int:
        """A post that is to be published now: not so late that it would wait for the next place."""
        at = datetime.now(UTC) - timedelta(minutes=1)
        number = self.post(store, caption, status="scheduled", scheduled_at=at, **fields)
        with Store(self.config()) as queue:
            queue.release()
        return number

    def state(self, post: int) -> dict[str, Any]:
        """What the database says of a post."""
        [row] = self.sql(
            "SELECT posts.*, state, container, failures, attempts, last_error, publications.settled_at,"
            " extract(epoch FROM next_at - now())::float8 AS wait"
            " FROM shop.posts LEFT JOIN shop.publications ON post_id = id WHERE id = %s",
            post,
        )
        return row

    def publish(self, post: int, config: Config | None = None) -> dict[str, Any]:
        """Let the queue try once, now; what the database says then."""
        self.sql("UPDATE shop.publications SET next_at = now() WHERE post_id = %s AND state = 'pending'", post)
        publish_once(config or self.config(), post)
        return self.state(post)

    def settle(self, post: int, most: int = 12) -> dict[str, Any]:
        """Let the queue try until it is through with a post."""
        for _ in range(most):
            state = self.publish(post)
            if state["state"] != "pending":
                break
        return state


def publish_once(config: Config, post: int) -> None:
    """One attempt of the queue, with little patience."""
    limiter = RateLimiterClient(config.limiter_url)
    with Store(config) as store, limiter, httpx.Client(timeout=1, trust_env=False) as client:
        Publisher(config, store, limiter, client, sleep=lambda seconds: None).publish(post)


@contextlib.contextmanager
def neighbours(folder: Path) -> Iterator[Neighbours]:
    """All of them, up; nothing stays behind."""
    with database(folder) as parts:
        rate_limiter_server.build_image(parts.engine)
        build_service(parts.engine, SOURCE, IMAGE)
        yield Neighbours(parts, folder)
