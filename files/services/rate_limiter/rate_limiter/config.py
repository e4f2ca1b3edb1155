"""Settings from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """How to reach Redis and where to listen. ``redis_timeout`` is seconds per connect and per answer."""

    redis_host: str
    redis_port: int
    redis_user: str
    redis_password: str = field(repr=False)
    redis_timeout: float
    host: str
    port: int
    policies: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read every variable, with its default. Raises ConfigError naming the first wrong one."""
        return cls(
            redis_host=environment.get("REDIS_HOST", "redis"),
            redis_port=_port(environment, "REDIS_PORT", 6379),
            redis_user=environment.get("REDIS_USER", "rate_limiter"),
            redis_password=_secret(environment, "REDIS_PASSWORD_FILE", "/run/secrets/redis_rate_limiter_password"),
            redis_timeout=_seconds(environment, "REDIS_TIMEOUT", 0.25),
            host=environment.get("RATE_LIMITER_HOST", "0.0.0.0"),  # noqa: S104  # only networks of its container
            port=_port(environment, "RATE_LIMITER_PORT", 3001),
            policies=Path(environment.get("RATE_LIMITER_POLICIES", "/etc/rate_limiter/policies.json")),
        )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ConfigError(f"{name}: expected a port 1..65535, got {text!r}")
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.01 <= seconds <= 10:
        raise ConfigError(f"{name}: expected seconds 0.01..10, got {text!r}")
    return seconds


def _secret(environment: Mapping[str, str], name: str, default: str) -> str:
    path = environment.get(name, default)
    try:
        secret = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: {path} is not UTF-8 text") from error
    if not secret:
        raise ConfigError(f"{name}: {path} is empty")
    return secret
