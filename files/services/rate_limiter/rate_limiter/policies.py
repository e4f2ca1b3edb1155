"""Policies: how many units each API takes in which window. Data, read once at start."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError

# The log keeps one list entry per admitted unit, and a check may add `limit` of them at once.
MAX_LIMIT = 5000
MAX_WINDOW_SECONDS = 31 * 24 * 3600

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_BOUNDS = {"limit": MAX_LIMIT, "window_seconds": MAX_WINDOW_SECONDS}


@dataclass(frozen=True, slots=True)
class Policy:
    """At most ``limit`` units of ``api`` in any span of ``window_seconds``."""

    api: str
    limit: int
    window_seconds: int


def load_policies(path: Path) -> dict[str, Policy]:
    """Read ``{"policies": {"<api>": {"limit": int, "window_seconds": int}}}`` into api -> policy.

    Raises ConfigError naming the file and the key for anything missing, unknown, doubled or out of range.
    """
    try:
        document = json.loads(path.read_bytes(), object_pairs_hook=_without_doubles)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Set RATE_LIMITER_POLICIES.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid JSON: {error}") from error

    policies = _object(path, "the document", document, {"policies"})["policies"]
    if not isinstance(policies, dict) or not policies:
        raise ConfigError(f"{path}: policies: expected an object with at least one API")
    return {api: _policy(path, api, body) for api, body in policies.items()}


def _policy(path: Path, api: str, value: object) -> Policy:
    where = f"policies.{api}"
    if not _NAME.fullmatch(api):
        raise ConfigError(f"{path}: {where}: a name is 1 to 64 of a-z, 0-9 and _, and starts with no _")
    body = _object(path, where, value, set(_BOUNDS))
    for key, most in _BOUNDS.items():
        number = body[key]
        # bool is an int in Python, `"limit": true` is still a mistake.
        if type(number) is not int or not 1 <= number <= most:
            raise ConfigError(f"{path}: {where}.{key}: expected a whole number 1..{most}, got {number!r}")
    return Policy(api, **body)


def _object(path: Path, where: str, value: object, expected: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {where}: expected an object with {', '.join(sorted(expected))}")
    for problem, keys in (("missing", expected - value.keys()), ("unknown", value.keys() - expected)):
        if keys:
            raise ConfigError(f"{path}: {where}: {problem} key {', '.join(sorted(keys))}")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which a key stands twice is refused: one of the two limits would be ignored."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return result
