"""A real Redis or Valkey on the loopback: the installed one, else the project's image in this computer's network."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

import docker
from redis_server import RedisServer, image_of, start_container

SERVERS = ("redis-server", "valkey-server")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalRedis(RedisServer):
    """One server that can be stalled, killed and started again; nothing is kept over that."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.name = f"redis on port {self.port}"
        self._users_file = self._write_users(directory)
        self._program = next((program for name in SERVERS if (program := shutil.which(name))), None)
        self._process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start it, empty, and return once it listens."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--maxmemory-policy", "noeviction", "--save", ""]
        if self._program:
            options += ["--aclfile", str(self._users_file), "--dir", str(self._users_file.parent)]
            self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        else:
            engine = docker.from_env()
            self.container = start_container(
                engine,
                image_of(engine, "valkey"),
                ["valkey-server", *options, "--aclfile", "/users.acl", "--dir", "/data"],
                network_mode="host",
                user="999:1000",
                tmpfs={"/data": "uid=999,gid=1000"},
                volumes={str(self._users_file): {"bind": "/users.acl", "mode": "ro"}},
            )
        self.wait()

    def address(self) -> tuple[str, int] | None:
        """Where it takes connections now."""
        address = ("127.0.0.1", self.port)
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            return None
        return address

    @property
    def pid(self) -> int:
        """Its process."""
        if self._program:
            return self._process.pid
        self.container.reload()
        return int(self.container.attrs["State"]["Pid"])

    def stall(self) -> None:
        """Let it do nothing; connections stay."""
        if self._program:
            self._process.send_signal(signal.SIGSTOP)
        else:
            self.container.pause()

    def resume(self) -> None:
        """Let it go on."""
        if self._program:
            self._process.send_signal(signal.SIGCONT)
            return
        self.container.reload()
        # The engine refuses to let go on what does not stand still.
        if self.container.status == "paused":
            self.container.unpause()

    def remove(self) -> None:
        """Kill it, with its data."""
        if self._program:
            self._process.kill()
            self._process.wait()
        else:
            self.container.remove(force=True, v=True)
