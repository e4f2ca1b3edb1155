"""Settings: where the neighbours are (environment), and what is published when by whom (two JSON files)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .errors import ConfigError
from .schedule import Plan

CHANNELS = ("instagram", "instagram_story")


@dataclass(frozen=True, slots=True)
class Account:
    """The Instagram account of one store."""

    store: str
    number: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    ``unsure_seconds``: how long after a call without an answer the provider is asked what came of it.
    """

    postgres: Mapping[str, Any] = field(repr=False)
    broker: str = field(repr=False)
    limiter_url: str
    limiter_token: str = field(repr=False)
    alive: Path
    lease_seconds: float
    unsure_seconds: float
    sweep_seconds: float
    silence_seconds: float
    graph_url: str
    zone: ZoneInfo
    confidence: float
    give_up_hours: int
    schedule: Mapping[str, Plan]
    accounts: Mapping[str, Account]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read every variable and both files. Raises ConfigError naming the first mistake."""
        get = environment.get
        settings = Path(get("POSTING_SETTINGS", "/etc/posting_queue/settings.json"))
        document = _document(settings)
        tokens = _document(Path(get("POSTING_SECRETS", "/run/secrets/posting_secrets")))
        password = _secret(get("REDIS_PASSWORD_FILE", "/run/secrets/redis_posting_queue_password"))
        user, host, port = get("REDIS_USER", "posting_queue"), get("REDIS_HOST", "redis"), get("REDIS_PORT", "6379")
        limiter_token = get("RATE_LIMITER_TOKEN_FILE", "/run/secrets/rate_limiter_token_posting_queue")
        return cls(
            postgres={
                "host": get("POSTGRES_HOST", "postgres"),
                "port": get("POSTGRES_PORT", "5432"),
                "user": get("POSTGRES_USER", "shop"),
                "dbname": get("POSTGRES_DATABASE", "shop"),
                "password": _secret(get("POSTGRES_PASSWORD_FILE", "/run/secrets/shop_db_password")),
            },
            broker=f"redis://{quote(user)}:{quote(password, safe='')}@{host}:{port}/0",
            limiter_url=get("RATE_LIMITER_URL", "http://rate_limiter:3001"),
            limiter_token=_secret(limiter_token) if limiter_token else "",
            alive=Path(get("POSTING_ALIVE", "/tmp/alive")),  # noqa: S108  # a tmpfs of its container
            lease_seconds=_number(get("POSTING_LEASE_SECONDS", "300"), "POSTING_LEASE_SECONDS", 1, 3600),
            unsure_seconds=_number(get("POSTING_UNSURE_SECONDS", "60"), "POSTING_UNSURE_SECONDS", 0, 3600),
            sweep_seconds=_number(get("POSTING_SWEEP_SECONDS", "60"), "POSTING_SWEEP_SECONDS", 1, 120),
            silence_seconds=_number(get("POSTING_SILENCE_SECONDS", "300"), "POSTING_SILENCE_SECONDS", 5, 3600),
            **_read(document, tokens, settings),
        )


def _read(document: Mapping[str, Any], tokens: Mapping[str, Any], path: Path) -> dict[str, Any]:
    known = ("graph_url", "zone", "confidence", "give_up_hours", "schedule", "accounts")
    for key in document:
        if key not in known:
            raise ConfigError(f"{path}: {key}: is unknown; known are {', '.join(known)}")
    url = document.get("graph_url", "https://graph.facebook.com/v26.0")
    if not isinstance(url, str) or not re.fullmatch(r"https?://\S+", url):
        raise ConfigError(f"{path}: graph_url: must be an address, not {url!r}")
    try:
        zone = ZoneInfo(document.get("zone", "UTC"))
    except (ZoneInfoNotFoundError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: zone: must be a time zone, like Europe/Berlin") from error
    schedule = document.get("schedule", {})
    for channel in schedule:
        if channel not in CHANNELS:
            raise ConfigError(f"{path}: schedule.{channel}: there is no such channel, only {', '.join(CHANNELS)}")
    return {
        "graph_url": url.rstrip("/"),
        "zone": zone,
        "confidence": _number(document.get("confidence", 0.7), f"{path}: confidence", 0, 1),
        "give_up_hours": int(_number(document.get("give_up_hours", 24), f"{path}: give_up_hours", 1, 720)),
        "schedule": {name: read_plan(entry, f"{path}: schedule.{name}") for name, entry in schedule.items()},
        "accounts": {
            store: _account(store, number, tokens.get(store), path)
            for store, number in document.get("accounts", {}).items()
        },
    }


def read_plan(entry: object, at: str) -> Plan:
    """``{times: ["09:00"], posts: 1}`` or ``{every_hours: 3, posts: 4}``. Raises ConfigError."""
    given = entry if isinstance(entry, dict) else {}
    times, hours = given.get("times"), given.get("every_hours")
    if set(given) - {"times", "every_hours", "posts"} or (times is None) == (hours is None):
        raise ConfigError(f"{at}: must have times or every_hours, and may have posts, nothing else")
    posts = int(_number(given.get("posts", 1), f"{at}.posts", 1, 100))
    if times is None:
        every = int(_number(hours, f"{at}.every_hours", 1, 24))
        return Plan(tuple(time(hour) for hour in range(0, 24, every)), posts)
    if not isinstance(times, list) or not times or not all(_is_time(text) for text in times):
        raise ConfigError(f'{at}.times: must be a list of times, like ["09:00", "19:30"]')
    return Plan(tuple(sorted({time.fromisoformat(text) for text in times})), posts)


def _is_time(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text) is not None


def _account(store: str, number: object, token: object, path: Path) -> Account:
    if not isinstance(number, str) or not re.fullmatch(r"\d{1,30}", number):
        raise ConfigError(f"{path}: accounts.{store}: must be the number of an Instagram account, as a text")
    if not isinstance(token, str) or not token:
        raise ConfigError(f"there is no token for the account of the store {store}")
    return Account(store, number, token)


def _number(value: object, at: str, low: float, high: float) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise ConfigError(f"{at}: must be a number from {low:g} to {high:g}, not {value!r}")
    return number


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _secret(path: str) -> str:
    secret = _text(Path(path)).rstrip("\r\n")
    if not secret:
        raise ConfigError(f"{path} is empty")
    return secret


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(_text(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping")
    return document
