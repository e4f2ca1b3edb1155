"""A real Redis (Valkey) in a container, with the users of the project, and access as its administrator."""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jinja2
from docker import DockerClient
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container
from images import host_arch
from waiting import wait_until

USERS_TEMPLATE = Path(__file__).parents[2] / "templates/secrets/redis_users.j2"
LABELS = {"pi-commerce.test": "services"}
PORT = 6379


def image_of(engine: DockerClient, name: str) -> str:
    """Newest local tag of ``pi-commerce/<name>`` for this machine. Raises ImageNotFound, saying how to build it."""
    found = engine.images.list(f"pi-commerce/{name}")
    images = [image for image in found if image.attrs["Architecture"] == host_arch()]
    if not images:
        raise ImageNotFound(f"no image pi-commerce/{name} on this engine: run `make images`")
    newest = max(images, key=lambda image: image.attrs["Created"])
    return str(newest.tags[0])


def address_of(container: Container, port: int) -> tuple[str, int] | None:
    """Address the container has now, once it is running and something listens there."""
    container.reload()
    [network] = container.attrs["NetworkSettings"]["Networks"].values()
    address = (str(network["IPAddress"]), port)
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return None
    return address if container.status == "running" else None


def start_container(engine: DockerClient, image: str, command: list[str] | None, **options: object) -> Container:
    """Start a container, hardened like those of the project. One that cannot start leaves nothing behind."""
    container = engine.containers.create(
        image,
        command,
        labels=LABELS,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        **options,
    )
    try:
        container.start()
    except APIError:
        container.remove(v=True)
        raise
    return container


class RedisServer:
    """One server on a network of its own making; its host name there is ``name``."""

    def __init__(self, engine: DockerClient, network: str, directory: Path) -> None:
        """Start it; ``directory`` receives the file of its users."""
        self.admin_password = secrets.token_urlsafe(24)
        self.backup_password = secrets.token_urlsafe(24)
        self.limiter_password = secrets.token_urlsafe(24)
        self.name = f"{network}-redis"
        users = directory / "users.acl"
        users.write_text(self._users())
        users.chmod(0o644)
        self.container = start_container(
            engine,
            image_of(engine, "valkey"),
            [
                "valkey-server",
                "--aclfile",
                "/users.acl",
                "--dir",
                "/data",
                "--maxmemory-policy",
                "noeviction",
            ],
            name=self.name,
            network=network,
            user="999:1000",
            tmpfs={"/data": "uid=999,gid=1000"},
            volumes={str(users): {"bind": "/users.acl", "mode": "ro"}},
        )
        self.wait()

    def wait(self) -> None:
        """Return once it takes connections."""
        wait_until(lambda: address_of(self.container, PORT) is not None, 60, f"{self.name} listens")

    def command(self, *words: str | int) -> object:
        """Run one command as administrator. Raises AssertionError with the text of an error reply."""
        address = address_of(self.container, PORT)
        assert address, f"{self.name} does not listen"
        with socket.create_connection(address, timeout=5) as connection, connection.makefile("rb") as replies:
            for request in (("AUTH", self.admin_password), words):
                arguments = [str(word).encode() for word in request]
                lines = [b"*%d" % len(arguments)]
                for argument in arguments:
                    lines += [b"$%d" % len(argument), argument]
                connection.sendall(b"\r\n".join([*lines, b""]))
                reply = _reply(replies.readline, replies.read)
        return reply

    def numbers(self, key: str) -> list[int]:
        """Members of a list of whole numbers."""
        reply = self.command("LRANGE", key, 0, -1)
        assert isinstance(reply, list)
        return [int(member) for member in reply]

    def number(self, *words: str | int) -> int:
        """Run a command that answers with one whole number."""
        reply = self.command(*words)
        assert isinstance(reply, int | str)
        return int(reply)

    def clock(self) -> int:
        """Microseconds of the server's clock."""
        reply = self.command("TIME")
        assert isinstance(reply, list)
        return int(reply[0]) * 1_000_000 + int(reply[1])

    def remove(self) -> None:
        """Remove the container with its data."""
        self.container.remove(force=True, v=True)

    def _users(self) -> str:
        """The users file exactly as the project renders it."""
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701  # not HTML
        environment.filters["hash"] = lambda text, kind: hashlib.new(kind, text.encode()).hexdigest()
        known = SimpleNamespace(
            redis_admin_password=self.admin_password,
            redis_backup_password=self.backup_password,
            redis_rate_limiter_password=self.limiter_password,
        )
        return environment.from_string(USERS_TEMPLATE.read_text()).render(secrets=known) + "\n"


def _reply(readline: Callable[[], bytes], read: Callable[[int], bytes]) -> object:
    """One RESP2 reply: int, text, None, or a list of them."""
    line = readline().removesuffix(b"\r\n")
    kind, rest = line[:1], line[1:].decode()
    if kind == b"-":
        raise AssertionError(f"redis: {rest}")
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == "-1" else read(int(rest) + 2)[:-2].decode()
    if kind == b"*":
        return [_reply(readline, read) for _ in range(int(rest))]
    return rest
