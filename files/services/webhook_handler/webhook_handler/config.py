"""Settings: where the neighbours are (environment), and who sends what to whom (one JSON file)."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .providers import PROVIDERS

# Retries of a provider that has been away for days still find their first copy.
_DEFAULT_TOLERANCE = {"paypal": 4 * 24 * 3600}
_FORMATS = ("raw", "order")
_KINDS = ("http", "celery")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address, /webhooks/<name>: ``shopify``, or ``shopify/second`` of a second store."""

    name: str
    provider: str
    store: str
    secrets: tuple[str, ...] = field(repr=False)
    token: str = field(repr=False)
    tolerance_seconds: int
    max_body_bytes: int
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who is handed events: an HTTP address, or a Celery task in ``queue``."""

    name: str
    kind: str
    url: str
    task: str
    queue: str
    format: str
    token: str = field(repr=False)
    concurrency: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Route:
    """Events of ``endpoint`` whose kind fits one of ``topics`` go to ``consumers``."""

    endpoint: str
    topics: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long what is kept (days), and how much of it may lie there."""

    payload_days: int
    dead_days: int
    key_days: int
    payload_mib: int
    waiting_events: int
    # An event that nobody takes for so long is given up, and can be replayed.
    give_up_hours: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the settings file says."""

    endpoints: Mapping[str, Endpoint]
    consumers: Mapping[str, Consumer]
    routes: tuple[Route, ...]
    keeping: Keeping
    admin_token: str = field(repr=False)

    def consumers_of(self, endpoint: str, topic: str) -> list[str]:
        """The names of those who are handed an event, each once."""
        names = [
            name
            for route in self.routes
            if route.endpoint == endpoint and any(fnmatch.fnmatchcase(topic, wanted) for wanted in route.topics)
            for name in route.consumers
        ]
        return list(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Config:
    """Where everything is. An empty ``redis_host`` or ``limiter_url`` does without."""

    host: str
    port: int
    postgres: Mapping[str, Any] = field(repr=False)
    redis_host: str
    redis_port: int
    redis_user: str
    redis_password: str = field(repr=False)
    limiter_url: str
    limiter_token: str = field(repr=False)
    settings: Settings

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read every variable, with its default. Raises ConfigError naming the first wrong one."""
        get = environment.get
        redis_host = get("REDIS_HOST", "redis")
        return cls(
            host=get("WEBHOOK_HOST", "0.0.0.0"),  # noqa: S104  # only networks of its container
            port=_port(get("WEBHOOK_PORT", "3002"), "WEBHOOK_PORT"),
            postgres={
                "host": get("POSTGRES_HOST", "postgres"),
                "port": _port(get("POSTGRES_PORT", "5432"), "POSTGRES_PORT"),
                "user": get("POSTGRES_USER", "shop"),
                "database": get("POSTGRES_DATABASE", "shop"),
                "password": _secret(get("POSTGRES_PASSWORD_FILE", "/run/secrets/shop_db_password")),
            },
            redis_host=redis_host,
            redis_port=_port(get("REDIS_PORT", "6379"), "REDIS_PORT"),
            redis_user=get("REDIS_USER", "webhook_handler"),
            redis_password=_secret(get("REDIS_PASSWORD_FILE", "/run/secrets/redis_webhook_handler_password"))
            if redis_host
            else "",
            limiter_url=get("RATE_LIMITER_URL", "http://rate_limiter:3001"),
            limiter_token=_secret(token) if (token := get("RATE_LIMITER_TOKEN_FILE")) else "",
            settings=read_settings(
                Path(get("WEBHOOK_SETTINGS", "/etc/webhook_handler/settings.json")),
                Path(get("WEBHOOK_SECRETS", "/run/secrets/webhook_secrets")),
            ),
        )


class _Section:
    """One mapping of the file; every mistake is named with its place, and unknown keys are mistakes."""

    def __init__(self, value: object, at: str, known: tuple[str, ...]) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{at}: must be a mapping")
        for key in value:
            if key not in known:
                raise ConfigError(f"{at}.{key}: is unknown; known are {', '.join(known)}")
        self.value, self.at = value, at

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self.value.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{self.at}.{key}: must be a whole number from {low} to {high}, not {value!r}")
        return value

    def text(self, key: str, default: str | None = None, choices: tuple[str, ...] = ()) -> str:
        value = self.value.get(key, default)
        if not isinstance(value, str) or (default is None and not value) or (choices and value not in choices):
            wanted = f"one of {', '.join(choices)}" if choices else "a text"
            raise ConfigError(f"{self.at}.{key}: must be {wanted}, not {value!r}")
        return value

    def texts(self, key: str, choices: Mapping[str, object] | None = None) -> tuple[str, ...]:
        value = self.value.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{self.at}.{key}: must be a list of texts, not empty")
        for item in value:
            if choices is not None and item not in choices:
                raise ConfigError(f"{self.at}.{key}: {item!r} is not declared, only {', '.join(choices) or 'none'}")
        return tuple(value)


def read_settings(path: Path, secrets_path: Path) -> Settings:
    """Read both files. Raises ConfigError."""
    document = _Section(_json(path), str(path), ("endpoints", "consumers", "routes", "keeping"))
    secrets = _Section(_json(secrets_path), str(secrets_path), ("endpoints", "consumers", "admin"))
    endpoint_secrets = secrets.value.get("endpoints") or {}
    consumer_tokens = secrets.value.get("consumers") or {}
    endpoints = {
        name: _endpoint(name, value, f"{path}: endpoints.{name}", endpoint_secrets.get(name), secrets_path)
        for name, value in (document.value.get("endpoints") or {}).items()
    }
    consumers = {
        name: _consumer(name, value, f"{path}: consumers.{name}", consumer_tokens.get(name, ""))
        for name, value in (document.value.get("consumers") or {}).items()
    }
    routes = []
    for number, value in enumerate(document.value.get("routes") or []):
        section = _Section(value, f"{path}: routes[{number}]", ("endpoint", "topics", "consumers"))
        endpoint = section.text("endpoint", choices=tuple(endpoints))
        routes.append(Route(endpoint, section.texts("topics"), section.texts("consumers", consumers)))
    return Settings(
        endpoints,
        consumers,
        tuple(routes),
        _keeping(document.value.get("keeping", {}), path),
        secrets.text("admin", ""),
    )


def _endpoint(name: str, value: object, at: str, given: object, secrets_path: Path) -> Endpoint:
    provider = name.partition("/")[0]
    module = PROVIDERS.get(provider)
    if module is None:
        raise ConfigError(f"{at}: there is no provider {provider!r}; there are {', '.join(PROVIDERS)}")
    section = _Section(value, at, ("store", "tolerance_seconds", "max_body_bytes", *module.OPTIONS))
    options = {key: section.text(key, str(default)) for key, default in module.OPTIONS.items()}
    for key, allowed in getattr(module, "CHOICES", {}).items():
        section.text(key, options[key], tuple(allowed))
    held = given if isinstance(given, dict) else {}
    words = tuple(held.get("secrets") or ())
    # PayPal signs with a key of its own; what has to be known is the number of the endpoint.
    if provider == "paypal":
        section.text("webhook_id")
    elif not words or not all(isinstance(word, str) and len(word) >= 8 for word in words):
        raise ConfigError(f"{secrets_path}: endpoints.{name}.secrets: must be a list of texts of 8 characters or more")
    return Endpoint(
        name=name,
        provider=provider,
        store=section.text("store", "main"),
        secrets=words,
        token=str(held.get("token") or ""),
        tolerance_seconds=section.integer("tolerance_seconds", _DEFAULT_TOLERANCE.get(provider, 300), 1, 30 * 86400),
        max_body_bytes=section.integer("max_body_bytes", 1024 * 1024, 1024, 8 * 1024 * 1024),
        options=options,
    )


def _consumer(name: str, value: object, at: str, token: object) -> Consumer:
    section = _Section(value, at, ("kind", "url", "task", "queue", "format", "concurrency", "timeout_seconds"))
    kind = section.text("kind", "http", _KINDS)
    url = section.text("url") if kind == "http" else section.text("url", "")
    if kind == "http" and not url.startswith(("http://", "https://")):
        raise ConfigError(f"{at}.url: must start with http:// or https://, not {url!r}")
    return Consumer(
        name=name,
        kind=kind,
        url=url,
        task=section.text("task") if kind == "celery" else "",
        queue=section.text("queue", "celery"),
        format=section.text("format", "raw", _FORMATS),
        token=str(token or ""),
        concurrency=section.integer("concurrency", 4, 1, 64),
        timeout_seconds=section.integer("timeout_seconds", 30, 1, 300),
    )


def _keeping(value: object, path: Path) -> Keeping:
    limits = {
        "payload_days": (30, 1, 3650),
        "dead_days": (90, 1, 3650),
        "key_days": (400, 4, 3650),
        "payload_mib": (1024, 1, 1024 * 1024),
        "waiting_events": (100_000, 100, 10_000_000),
        "give_up_hours": (72, 1, 24 * 365),
    }
    section = _Section(value, f"{path}: keeping", tuple(limits))
    return Keeping(**{key: section.integer(key, *limit) for key, limit in limits.items()})


def _port(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ConfigError(f"{name}: expected a port 1..65535, got {text!r}")
    return int(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error


def _secret(path: str) -> str:
    secret = _read(Path(path)).rstrip("\r\n")
    if not secret:
        raise ConfigError(f"{path} is empty")
    return secret


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
