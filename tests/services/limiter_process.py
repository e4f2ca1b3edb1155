"""The service as a process of its own on the loopback, as it is started in its container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from local_redis import LocalRedis, free_port
from rate_limiter_server import POLICIES, SOURCE, Client
from waiting import wait_until


class LimiterProcess:
    """One process; its policies may be written anew while it runs."""

    def __init__(self, redis: LocalRedis, directory: Path, **environment: str) -> None:
        self.port = free_port()
        self.policies = directory / "policies.json"
        self.write({"policies": POLICIES})
        password = directory / "password"
        password.write_text(redis.limiter_password)
        settings = {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis.port),
            "REDIS_PASSWORD_FILE": str(password),
            "REDIS_TIMEOUT": "5",
            "RATE_LIMITER_HOST": "127.0.0.1",
            "RATE_LIMITER_PORT": str(self.port),
            "RATE_LIMITER_POLICIES": str(self.policies),
            **environment,
        }
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rate_limiter"], cwd=SOURCE, env={**os.environ, **settings}, stderr=log
            )
        wait_until(self.healthy, 20, f"the service answers; log: {self.log.read_text()}")

    def write(self, policies: Mapping[str, object]) -> None:
        """Replace the policies file as `file_tree` does."""
        new = self.policies.with_suffix(".new")
        new.write_text(json.dumps(policies))
        new.replace(self.policies)

    def client(self) -> Client:
        """A new connection."""
        return Client(("127.0.0.1", self.port))

    def healthy(self) -> bool:
        """Whether /health answers 200."""
        try:
            return self.client().request("GET", "/health").status == 200
        except OSError:
            return False

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
