"""What ``x-pi`` may say: the schema as data, and the few rules it is written in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .place import Place, shown

EDITIONS = ("lean", "appwrite")


@dataclass(frozen=True)
class Rule:
    """One kind of value. ``read`` returns it with its defaults, or refuses it and returns None."""

    expect: str
    read: Callable[[object, Place], Any]


@dataclass(frozen=True)
class Key:
    """One key of a mapping; a missing optional key takes its default, unless that is None."""

    rule: Rule
    required: bool = True
    default: Any = None


def _scalar(expect: str, accepts: Callable[[Any], bool]) -> Rule:
    def read(value: object, at: Place) -> object:
        if accepts(value):
            return value
        at.refuse(f"must be {expect}, not {shown(value)}")
        return None

    return Rule(expect, read)


def _matching(expect: str, pattern: str) -> Rule:
    return _scalar(expect, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def _integer(low: int, high: int) -> Rule:
    # type(), because YAML's true is an int in Python.
    return _scalar(f"a number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _one_of(*words: str) -> Rule:
    return _scalar(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def _list(of: Rule) -> Rule:
    expect = f"a list, not empty, each {of.expect}"

    def read(value: object, at: Place) -> list[Any] | None:
        if not isinstance(value, list) or not value:
            at.refuse(f"must be {expect}; it is {shown(value)}")
            return None
        items = (of.read(item, at[index]) for index, item in enumerate(value))
        return [item for item in items if item is not None]

    return Rule(expect, read)


def _mapping(keys: Mapping[str, Key]) -> Rule:
    expect = f"a mapping with {', '.join(name for name, key in keys.items() if key.required)}"

    def read(value: object, at: Place) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            at.refuse(f"must be {expect}, not {shown(value)}")
            return None
        at.refuse_unknown(value, keys)
        result = {}
        for name, key in keys.items():
            if name in value:
                item = key.rule.read(value[name], at / name)
            else:
                item = key.default
                if key.required:
                    (at / name).refuse(f"missing; must be {key.rule.expect}")
            if item is not None:
                result[name] = item
        return result

    return Rule(expect, read)


def _exactly_one(kinds: Mapping[str, Rule]) -> Rule:
    """A mapping with one of the keys ``kinds``."""
    expect = f"a mapping with exactly one of {', '.join(kinds)}"

    def read(value: object, at: Place) -> dict[str, Any] | None:
        if not isinstance(value, dict) or len(value) != 1:
            at.refuse(f"must be {expect}")
            return None
        at.refuse_unknown(value, kinds)
        return {kind: kinds[kind].read(item, at / kind) for kind, item in value.items() if kind in kinds}

    return Rule(expect, read)


def _variants(kinds: Mapping[str, Mapping[str, Key]]) -> Rule:
    """A mapping whose key ``kind`` decides which other keys it has."""
    kind = _one_of(*kinds)
    rules = {name: _mapping({"kind": Key(kind), **keys}) for name, keys in kinds.items()}
    expect = f"a mapping with kind ({', '.join(kinds)})"

    def read(value: object, at: Place) -> dict[str, Any] | None:
        if not isinstance(value, dict) or "kind" not in value:
            at.refuse(f"must be {expect}")
            return None
        name = kind.read(value["kind"], at / "kind")
        result: dict[str, Any] | None = rules[name].read(value, at) if name else None
        return result

    return Rule(expect, read)


_LINE = _scalar("one line of text", lambda value: isinstance(value, str) and value.strip() != "" and "\n" not in value)
_NAME = _matching("a name of lower-case letters, digits and _", r"[a-z][a-z0-9_]*")
_VOLUME = _matching("the name of a volume", r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_PATH = _matching("a path that starts with /", r"/[^\s?#]*")
_WORD = _scalar("a text (quote it)", lambda value: isinstance(value, str))
_BOOL = _scalar("true or false", lambda value: isinstance(value, bool))
_PORT = _integer(1, 65535)

_HTTP = _mapping(
    {
        "port": Key(_PORT),
        "path": Key(_PATH),
        "status": Key(_integer(100, 599), required=False, default=200),
        "tls": Key(_BOOL, required=False, default=False),
    }
)

# Without `databases` every database that an enabled service declares is dumped. `spool` is the volume where the server
# leaves its write-ahead log to be shipped. n8n: workflows and credentials as its own command line exports them.
_BACKUP = _variants(
    {
        "postgres": {"volume": Key(_VOLUME), "spool": Key(_VOLUME), "databases": Key(_list(_NAME), required=False)},
        "redis": {"volume": Key(_VOLUME), "user": Key(_NAME), "password_secret": Key(_NAME)},
        "n8n": {"volume": Key(_VOLUME)},
        "volume": {"volume": Key(_VOLUME)},
        "none": {"reason": Key(_LINE), "volume": Key(_VOLUME, required=False)},
    }
)

_DATABASE = _mapping({"name": Key(_NAME), "owner": Key(_NAME), "password_secret": Key(_NAME)})

_ROUTE = _mapping(
    {
        "path": Key(_PATH),
        "port": Key(_PORT),
        "limit": Key(_one_of("editor", "webhook", "api")),
        "match": Key(_one_of("prefix", "exact"), required=False, default="prefix"),
        "upstream_path": Key(_PATH, required=False),
    }
)

X_PI = _mapping(
    {
        "summary": Key(_LINE),
        "editions": Key(_list(_one_of(*EDITIONS))),
        "tier": Key(_one_of("edge", "cloud")),
        "required": Key(_BOOL, required=False, default=False),
        "exposure": Key(_one_of("none", "lan", "vpn", "public")),
        "probe": Key(_exactly_one({"http": _HTTP, "exec": _list(_WORD)})),
        "metrics": Key(_mapping({"port": Key(_PORT), "path": Key(_PATH)}), required=False),
        "backup": Key(_list(_BACKUP)),
        "databases": Key(_list(_DATABASE), required=False, default=()),
        "routes": Key(_list(_ROUTE), required=False, default=()),
        "secrets": Key(_list(_NAME), required=False, default=()),
    }
)
