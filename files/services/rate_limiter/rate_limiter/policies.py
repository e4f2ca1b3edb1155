"""Policies: how many units each API takes in which windows. Data; nothing here knows Redis or HTTP."""

from __future__ import annotations

import json
import re
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .periods import PERIODS, Calendar

# The log keeps one entry per admitted unit, and a check may add `limit` of them at once.
MAX_LIMIT = {"log": 5000, "gcra": 1_000_000, "calendar": 1_000_000_000}
MAX_WINDOW_SECONDS = 31 * 24 * 3600
MAX_WINDOWS = 8
ON_FAILURE = ("local", "closed", "open")
# The tenant's own window, by kind: what a window of that kind has besides its limit.
KINDS = {"log": {"window_seconds"}, "gcra": {"window_seconds"}, "calendar": {"period", "time_zone"}}

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """At most ``limit`` units in any ``window_seconds`` (log), in a bucket that refills in them (gcra), or in a period.

    ``per``: the scope (chat, group) it counts by, None: the tenant as a whole. ``name`` is its own within the policy.
    """

    kind: str
    limit: int
    window_seconds: int = 0
    calendar: Calendar | None = None
    per: str | None = None
    name: str = ""
    fixed: tuple[str | int, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Put together once what scripts are told each time."""
        each = self.step if self.kind == "gcra" else self.span
        object.__setattr__(self, "fixed", (self.kind, self.limit, each))

    @property
    def span(self) -> int:
        """Microseconds that an admission counts at most."""
        return self.calendar.longest if self.calendar else self.window_seconds * _SECOND

    @property
    def step(self) -> int:
        """Microseconds in which a bucket gains one unit, rounded up."""
        return -(-self.span // self.limit)

    def arguments(self, clock: int) -> tuple[str | int, ...]:
        """What a script has to be told about this window when the clock of Redis shows ``clock``."""
        if self.calendar:
            return ("calendar", self.limit, *self.calendar.bounds(clock))
        return self.fixed


@dataclass(frozen=True, slots=True)
class Policy:
    """The windows of one API, the first is the tenant's; what happens without Redis; whether it only watches."""

    api: str
    windows: tuple[Window, ...]
    on_failure: str = "local"
    shadow: bool = False
    scopes: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the scopes that a check may name."""
        object.__setattr__(self, "scopes", frozenset(window.per for window in self.windows if window.per))

    def applying(self, scopes: Mapping[str, str]) -> tuple[Window, ...]:
        """The windows that a check with these scopes falls under."""
        if not self.scopes:
            return self.windows
        return tuple(window for window in self.windows if window.per is None or window.per in scopes)


def load_policies(path: Path) -> dict[str, Policy]:
    """Read ``{"policies": {"<api>": {...}}}`` into api -> policy; README.md has the keys.

    Raises ConfigError naming the file and the key for anything missing, unknown, doubled or out of range.
    """
    try:
        document = json.loads(path.read_bytes(), object_pairs_hook=_without_doubles)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Set RATE_LIMITER_POLICIES.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid JSON: {error}") from error
    try:
        return read_policies(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_policies(document: object) -> dict[str, Policy]:
    """Read the parsed document. Raises ConfigError naming the key."""
    policies = _object("the document", document, {"policies"})["policies"]
    if not isinstance(policies, dict) or not policies:
        raise ConfigError("policies: expected an object with at least one API")
    return {api: _policy(api, body) for api, body in policies.items()}


def _policy(api: str, value: object) -> Policy:
    where = f"policies.{api}"
    _named(where, api)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected an object with limit and window_seconds")
    body = dict(value)
    on_failure, shadow = body.pop("on_failure", "local"), body.pop("shadow", False)
    if on_failure not in ON_FAILURE:
        raise ConfigError(f"{where}.on_failure: expected one of {', '.join(ON_FAILURE)}, got {on_failure!r}")
    if not isinstance(shadow, bool):
        raise ConfigError(f"{where}.shadow: expected true or false, got {shadow!r}")
    also = body.pop("also", [])
    if not isinstance(also, list) or len(also) >= MAX_WINDOWS:
        raise ConfigError(f"{where}.also: expected a list of at most {MAX_WINDOWS - 1} windows")
    windows = [_window(where, body, first=True)]
    for number, other in enumerate(also):
        windows.append(_window(f"{where}.also[{number}]", other, first=False))
    names = [window.name for window in windows]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(f"{where}.also[{number - 1}]: counts by the same as another window of it")
    return Policy(api, tuple(windows), on_failure, shadow)


def _window(where: str, value: object, *, first: bool) -> Window:
    kind = value.get("algorithm", "log") if isinstance(value, dict) else "log"
    if kind not in KINDS:
        raise ConfigError(f"{where}.algorithm: expected one of {', '.join(KINDS)}, got {kind!r}")
    optional = {"algorithm"} if first else {"algorithm", "per"}
    body = _object(where, value, {"limit", *KINDS[kind]}, optional)
    limit = _whole(where, "limit", body["limit"], MAX_LIMIT[kind])
    per = body.get("per")
    if per is not None:
        _named(f"{where}.per", per)
    if kind == "calendar":
        calendar, seconds, length = _calendar(where, body["period"], body["time_zone"]), 0, body["period"]
    else:
        calendar, seconds = None, _whole(where, "window_seconds", body["window_seconds"], MAX_WINDOW_SECONDS)
        length = str(seconds)
    # Other limits of the first window go on with what was counted; a key of another kind has another name.
    name = ("" if kind == "log" else kind) if first else f"{kind}.{per or ''}.{length}"
    return Window(kind, limit, seconds, calendar, per, name)


def _calendar(where: str, period: object, zone: object) -> Calendar:
    if period not in PERIODS:
        raise ConfigError(f"{where}.period: expected one of {', '.join(PERIODS)}, got {period!r}")
    try:
        return Calendar(str(period), zoneinfo.ZoneInfo(zone if isinstance(zone, str) else ""))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise ConfigError(f"{where}.time_zone: expected a name like Europe/Berlin, got {zone!r}") from error


def _whole(where: str, key: str, number: object, most: int) -> int:
    # bool is an int in Python, `"limit": true` is still a mistake.
    if type(number) is not int or not 1 <= number <= most:
        raise ConfigError(f"{where}.{key}: expected a whole number 1..{most}, got {number!r}")
    return number


def _named(where: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name is 1 to 64 of a-z, 0-9 and _, and starts with no _")


def _object(where: str, value: object, expected: set[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected an object with {', '.join(sorted(expected))}")
    for problem, keys in (("missing", expected - value.keys()), ("unknown", value.keys() - expected - set(optional))):
        if keys:
            raise ConfigError(f"{where}: {problem} key {', '.join(sorted(keys))}")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which a key stands twice is refused: one of the two limits would be ignored."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return result
