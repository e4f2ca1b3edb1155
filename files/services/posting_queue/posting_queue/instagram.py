"""Instagram's publishing API: prepare a container, publish it, look how it does (Graph API).

A container is what makes publishing safe to repeat: it is published at most once, and tells whether it was.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import httpx

from .config import Account
from .errors import Away, Later, Refused, Throttled

# The limiter's names of its limits: calls of any kind, and posts in 24 hours.
CALLS, POSTS = "instagram", "instagram_publishing"
_LARGEST = 1024 * 1024
_LONGEST = 60.0
# Too many calls of the application, of the user, of the account; too many posts; and what is the server's own trouble.
_TOO_MANY, _TOO_MANY_POSTS, _TROUBLE = {4, 17, 32, 613, 80002}, {9}, {1, 2}
# A token that has ended and a right that is missing: a person can mend both, and the post is as good as before.
_LOCKED_OUT = {10, 102, 190, *range(200, 300)}
_INSIGHTS = {"instagram": "reach,likes,comments,saved,shares", "instagram_story": "reach,replies,shares"}


@dataclass(frozen=True, slots=True)
class Post:
    """What is to be published."""

    channel: str
    caption: str
    media_url: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made; no ``status``: nobody answered. ``usage``: percent of what the application may."""

    operation: str
    status: int | None
    milliseconds: int
    usage: int
    regain_seconds: float


class Gate(Protocol):
    """Who is asked before each call, and told after it."""

    def ask(self, api: str) -> None:
        """Return when a call may be made. Raises Later."""

    def told(self, call: Call) -> None:
        """Note a call."""


class Instagram:
    """One account."""

    def __init__(self, url: str, account: Account, client: httpx.Client, gate: Gate) -> None:
        self._url, self._account, self._client, self._gate = url, account, client, gate

    def prepare(self, post: Post) -> str:
        """Have the picture fetched; the number of the container. One that is forgotten becomes nothing."""
        fields = {"image_url": post.media_url}
        fields |= {"media_type": "STORIES"} if post.channel == "instagram_story" else {"caption": post.caption}
        return _id(self._call("prepare", "POST", f"{self._account.number}/media", fields))

    def state(self, container: str) -> str:
        """IN_PROGRESS, FINISHED (can be published), PUBLISHED, ERROR or EXPIRED."""
        state = self._call("state", "GET", container, {"fields": "status_code"}).get("status_code")
        if state not in ("IN_PROGRESS", "FINISHED", "PUBLISHED", "ERROR", "EXPIRED"):
            raise Away(f"the state of a container is {state!r}")
        return str(state)

    def publish(self, container: str) -> str:
        """Publish a container; the number of what can be seen now."""
        self._gate.ask(POSTS)
        answer = self._call("publish", "POST", f"{self._account.number}/media_publish", {"creation_id": container})
        return _id(answer)

    def recent(self, channel: str) -> list[tuple[str, str, datetime]]:
        """What was published last: number, caption, when."""
        path = "stories" if channel == "instagram_story" else "media"
        fields = {"fields": "id,caption,timestamp", "limit": "50"}
        entries = self._call("recent", "GET", f"{self._account.number}/{path}", fields).get("data")
        try:
            return [
                (_id(entry), str(entry.get("caption", "")), datetime.fromisoformat(entry["timestamp"]))
                for entry in entries or []
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Away("the list of what was published cannot be read") from error

    def insights(self, media: str, channel: str) -> dict[str, int]:
        """How something that was published does."""
        data = self._call("insights", "GET", f"{media}/insights", {"metric": _INSIGHTS[channel]}).get("data")
        try:
            return {str(entry["name"]): int(entry["values"][0]["value"]) for entry in data or []}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Away("the insights cannot be read") from error

    def quota(self) -> tuple[int, int]:
        """How many posts of the last 24 hours count, and how many may."""
        fields = {"fields": "quota_usage,config"}
        data = self._call("quota", "GET", f"{self._account.number}/content_publishing_limit", fields).get("data")
        try:
            [entry] = data or []
            return int(entry["quota_usage"]), int(entry["config"]["quota_total"])
        except (KeyError, TypeError, ValueError) as error:
            raise Away("the quota cannot be read") from error

    def _call(self, operation: str, method: str, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        self._gate.ask(CALLS)
        given: dict[str, Any] = {"params": fields} if method == "GET" else {"data": fields}
        # Not in the address, which others write into their logs.
        headers = {"authorization": f"Bearer {self._account.token}"}
        began = time.monotonic()
        status, usage, regain, content = None, 0, 0.0, b""
        try:
            with self._client.stream(method, f"{self._url}/{path}", headers=headers, **given) as answer:
                status = answer.status_code
                usage, regain = _usage(answer.headers)
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > _LARGEST or time.monotonic() - began > _LONGEST:
                        raise Away(f"{operation}: the answer has no end")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Away(f"{operation}: {type(error).__name__}: {error}") from error
        finally:
            self._gate.told(Call(operation, status, int((time.monotonic() - began) * 1000), usage, regain))
        return _read(operation, status, content, answer.headers)


def _read(operation: str, status: int, content: bytes, headers: httpx.Headers) -> dict[str, Any]:
    """The answer as an object. Raises what it says."""
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    error = document.get("error") if isinstance(document, dict) else None
    if status == 200 and isinstance(document, dict) and error is None:
        return document
    about = error if isinstance(error, dict) else {}
    code = about.get("code")
    text = f"{operation}: {status}: {str(about.get('message', ''))[:300]} (code {code})"
    if status == 429 or code in _TOO_MANY:
        raise Throttled(text, _retry_after(headers), CALLS)
    if code in _TOO_MANY_POSTS:
        raise Throttled(text, _retry_after(headers, 3600), POSTS)
    if code in _LOCKED_OUT:
        raise Later(text, 900)
    if 400 <= status < 500 and about and code not in _TROUBLE and not about.get("is_transient"):
        raise Refused(text)
    raise Away(text)


def _retry_after(headers: httpx.Headers, default: float = 300) -> float:
    text = headers.get("retry-after", "")
    return min(float(text), 86400.0) if text.isascii() and text.isdigit() else default


def _usage(headers: httpx.Headers) -> tuple[int, float]:
    """The highest percentage that the headers tell of, and for how many seconds they say that nothing is allowed."""
    numbers, minutes = [0], [0]
    for name in ("x-app-usage", "x-business-use-case-usage"):
        try:
            document = json.loads(headers.get(name, "{}"))
            entries = [document] if name == "x-app-usage" else [one for given in document.values() for one in given]
            for entry in entries:
                numbers += [int(entry.get(key, 0)) for key in ("call_count", "total_time", "total_cputime")]
                minutes.append(int(entry.get("estimated_time_to_regain_access", 0)))
        except (ValueError, TypeError, AttributeError):
            continue
    return max(numbers), max(minutes) * 60.0


def _id(document: Mapping[str, Any]) -> str:
    number = document.get("id")
    if not isinstance(number, str) or not re.fullmatch(r"[0-9_]{1,60}", number):
        raise Away(f"a number was expected, not {number!r}")
    return number
