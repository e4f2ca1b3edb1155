"""Settings from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """How to reach Redis and where to listen.

    ``redis_timeout`` is seconds that an answer may take. ``instances``: processes that admit against the same Redis.
    """

    redis_host: str
    redis_port: int
    redis_user: str
    redis_password: str = field(repr=False)
    redis_timeout: float
    instances: int
    host: str
    port: int
    policies: Path
    callers: Path | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read every variable, with its default. Raises ConfigError naming the first wrong one."""
        return cls(
            redis_host=environment.get("REDIS_HOST", "redis"),
            redis_port=_whole(environment, "REDIS_PORT", 6379, 65535),
            redis_user=environment.get("REDIS_USER", "rate_limiter"),
            redis_password=_secret(environment, "REDIS_PASSWORD_FILE", "/run/secrets/redis_rate_limiter_password"),
            redis_timeout=_seconds(environment, "REDIS_TIMEOUT", 0.05),
            instances=_whole(environment, "RATE_LIMITER_INSTANCES", 1, 64),
            host=environment.get("RATE_LIMITER_HOST", "0.0.0.0"),  # noqa: S104  # only networks of its container
            port=_whole(environment, "RATE_LIMITER_PORT", 3001, 65535),
            policies=Path(environment.get("RATE_LIMITER_POLICIES", "/etc/rate_limiter/policies.json")),
            callers=Path(callers) if (callers := environment.get("RATE_LIMITER_CALLERS")) else None,
        )


def _whole(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environment.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise ConfigError(f"{name}: expected a whole number 1..{most}, got {text!r}")
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
