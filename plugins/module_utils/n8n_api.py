"""The few HTTP calls to n8n that publishing takes: owner session, short-lived API key, public API."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from email.message import Message
from types import TracebackType
from typing import Any, NamedTuple

_KEY_LABEL = "pi-commerce"
_LOGIN_PAUSE = 60
_SCOPES = {
    "update": ["workflow:update", "workflow:activate"],
    "publish": ["workflow:activate"],
    "unpublish": ["workflow:deactivate"],
    "unarchive": ["workflow:delete"],
    "delete credential": ["credential:delete"],
}


class N8nError(Exception):
    """n8n did not answer or refused; the text says what was asked and what it answered."""


class Reply(NamedTuple):
    """Status, headers, and the JSON body (None when there is none)."""

    status: int
    headers: Message
    body: Any

    @property
    def message(self) -> str:
        """Return n8n's own words about a refusal."""
        return str(self.body.get("message", self.body)) if isinstance(self.body, dict) else "no explanation"


class N8n:
    """One n8n, reached over plain HTTP at an address only this host can use."""

    def __init__(self, host: str, port: int = 5678) -> None:
        """Talk to n8n at this address; nothing is sent yet."""
        self._host, self._port = host, port

    def call(self, method: str, path: str, headers: dict[str, str], body: object = None) -> Reply:
        """Send one request; its answer, whatever its status. Raises N8nError when n8n cannot be reached."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise N8nError(f"n8n at {self._host} did not answer {method} {path}: {error}") from error
        finally:
            connection.close()
        is_json = raw and "json" in (answer.getheader("content-type") or "")
        return Reply(answer.status, answer.headers, json.loads(raw) if is_json else None)

    def is_ready(self) -> bool:
        """Say whether n8n is up with its database connected and migrated."""
        try:
            return self.call("GET", "/healthz/readiness", {}).status == 200
        except N8nError:
            return False

    def wait_until_ready(self, seconds: float) -> None:
        """Return as soon as n8n is ready. Raises N8nError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise N8nError(f"n8n at {self._host} was not ready within {seconds:.0f} s; look at its log")
            time.sleep(0.5)


class OwnerSession:
    """Context manager: the owner is logged in, and holds an API key for `verbs`, until the block ends."""

    def __init__(self, n8n: N8n, email: str, password: str, verbs: set[str], seconds: int = 900) -> None:
        """Prepare a session for the given methods of this class; nothing is sent yet.

        Should the key survive a crash of this process, it dies by itself `seconds` after the login.
        """
        self._n8n, self._email, self._password, self._seconds = n8n, email, password, seconds
        self._scopes = sorted({scope for verb in verbs for scope in _SCOPES.get(verb, [])})
        # n8n ties a session to this header. Another one each time: apart from it, two logins of one second get the same
        # cookie, and who has logged out with it has made it void.
        self._browser = {"browser-id": f"pi-commerce-{secrets.token_hex(8)}"}
        self._cookie: dict[str, str] = {}
        self._key: dict[str, Any] = {}

    def __enter__(self) -> OwnerSession:
        """Log in and make the key. Raises N8nError when n8n refuses."""
        reply = self._login()
        if reply.status == 429:
            # A few logins a minute are allowed, and n8n says when the next one is.
            time.sleep(min(float(reply.headers.get("retry-after", _LOGIN_PAUSE)), _LOGIN_PAUSE))
            reply = self._login()
        cookie = reply.headers.get("set-cookie", "").partition(";")[0]
        if reply.status != 200 or not cookie:
            raise N8nError(
                f"n8n refused the login of its owner {self._email} ({reply.status}: {reply.message}); check the"
                " owner's e-mail address and password, and that the owner has no two-factor login"
            )
        self._cookie = {**self._browser, "cookie": cookie}
        if self._scopes:
            key = {
                "label": _KEY_LABEL,
                "expiresAt": int(time.time()) + self._seconds,
                "scopes": self._scopes,
            }
            try:
                self._forget_key(_KEY_LABEL)
                self._key = self._ask("POST", "/rest/api-keys", self._cookie, key).body["data"]
            except N8nError:
                self._leave()
                raise
        return self

    def _forget_key(self, label: str) -> None:
        """Delete the key that a killed run has left: n8n takes a label once."""
        for key in self._ask("GET", "/rest/api-keys", self._cookie).body["data"]["items"]:
            if key["label"] == label:
                self._ask("DELETE", f"/rest/api-keys/{key['id']}", self._cookie)

    def _login(self) -> Reply:
        login = {"emailOrLdapLoginId": self._email, "password": self._password}
        return self._n8n.call("POST", "/rest/login", self._browser, login)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the key and log out."""
        self._leave()

    def _leave(self) -> None:
        if self._key:
            self._ask("DELETE", f"/rest/api-keys/{self._key['id']}", self._cookie)
        self._ask("POST", "/rest/logout", self._cookie)

    def node_types(self) -> list[str]:
        """Return every node type n8n has, as "type@version"."""
        return list(self._ask("GET", "/types/node-versions.json", self._cookie).body)

    def update(self, workflow: str, body: dict[str, Any]) -> None:
        """Replace a workflow's content; if it is published, the new content goes live in its place."""
        self._public("PUT", workflow, "", body)

    def publish(self, workflow: str) -> None:
        """Make the current content live."""
        self._public("POST", workflow, "/publish", {})

    def unpublish(self, workflow: str) -> None:
        """Take a workflow out of service; its content stays."""
        self._public("POST", workflow, "/unpublish", {})

    def unarchive(self, workflow: str) -> None:
        """Bring an archived workflow back (unpublished)."""
        self._public("POST", workflow, "/unarchive", {})

    def delete_credential(self, credential: str) -> None:
        """Delete a credential; what still uses it fails from then on."""
        self._ask("DELETE", f"/api/v1/credentials/{credential}", {"x-n8n-api-key": self._key["rawApiKey"]})

    def _public(self, method: str, workflow: str, tail: str, body: dict[str, Any]) -> None:
        self._ask(method, f"/api/v1/workflows/{workflow}{tail}", {"x-n8n-api-key": self._key["rawApiKey"]}, body)

    def _ask(self, method: str, path: str, headers: dict[str, str], body: object = None) -> Reply:
        reply = self._n8n.call(method, path, headers, body)
        if reply.status >= 300:
            raise N8nError(f"n8n refused {method} {path} ({reply.status}): {reply.message}")
        return reply
