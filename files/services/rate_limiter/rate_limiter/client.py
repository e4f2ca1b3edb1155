"""A client for our other services: one file, only the standard library, to be copied beside what needs it."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from types import TracebackType
from typing import Any, Self


class RateLimiterError(Exception):
    """No decision was to be had; nothing may be read as allowed."""


class RateLimiterClient:
    """One kept-alive connection; not for several threads at once."""

    def __init__(self, url: str, *, token: str = "", timeout: float = 3.0) -> None:
        """Ask the service at ``url`` (http://rate_limiter:3001), each time for at most ``timeout`` seconds."""
        parts = urllib.parse.urlsplit(url)
        self._url = url
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 3001, timeout=timeout)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def check(self, api: str, key: str = "", cost: int = 1, *, attempt: int = 0, **scopes: str) -> dict[str, Any]:
        """Ask once. Raises RateLimiterError."""
        body = {"api": api, "key": key, "cost": cost, "attempt": min(attempt, 100), "scopes": scopes}
        return self._ask("POST", "/v1/check", body)

    def acquire(self, api: str, key: str = "", cost: int = 1, *, longest: float = 60.0, **scopes: str) -> bool:
        """Ask until allowed, waiting as told; False: not within ``longest`` seconds. Raises RateLimiterError."""
        end = time.monotonic() + longest
        attempt = 0
        while True:
            answer = self.check(api, key, cost, attempt=attempt, **scopes)
            if answer["allowed"]:
                return True
            wait = answer["retry_after"]
            if wait is None or time.monotonic() + wait > end:
                return False
            time.sleep(wait)
            attempt += 1

    def reserve(
        self, api: str, key: str = "", cost: int = 1, *, max_wait: float = 60.0, **scopes: str
    ) -> dict[str, Any]:
        """Book a start of one's own. Raises RateLimiterError."""
        return self._ask(
            "POST", "/v1/reserve", {"api": api, "key": key, "cost": cost, "max_wait": max_wait, "scopes": scopes}
        )

    def refund(self, api: str, key: str, booking: str, **scopes: str) -> None:
        """Give a reservation back. Raises RateLimiterError."""
        self._ask("DELETE", "/v1/reserve", {"api": api, "key": key, "id": booking, "scopes": scopes})

    def report(self, api: str, key: str, retry_after: float) -> None:
        """Tell that the provider has refused for so many seconds. Raises RateLimiterError."""
        self._ask("POST", "/v1/report", {"api": api, "key": key, "retry_after": retry_after})

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Be closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Be closed."""
        self.close()

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            status, text = self._exchange(method, path, json.dumps(body))
            answer = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise RateLimiterError(f"{self._url}{path}: {error}") from error
        if status != 200:
            raise RateLimiterError(f"{self._url}{path}: {status}: {answer.get('error')}")
        return dict(answer)

    def _exchange(self, method: str, path: str, body: str) -> tuple[int, bytes]:
        kept = self._connection.sock is not None
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            # A connection that was kept may have been closed meanwhile. At worst the units count twice: the safe side.
            if not kept:
                raise
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
        return response.status, response.read()
