"""A stand-in for Instagram's publishing API, a process of its own: checks what it is sent, and misbehaves when told to.

POST /control adds trouble, GET /control tells all that was published and called. It publishes a container at most once,
as the real one does.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Whether what was asked is done all the same, by the kind of trouble.
TROUBLE = {
    "429": False,
    "too_many_posts": False,
    "500": False,
    "locked_out": False,
    "hang": False,
    "drop": False,
    "500_after": True,
    "hang_after": True,
    "drop_after": True,
    "garbage": True,
    "cut": True,
    "wrong_type": True,
    "redirect": False,
}
# An hour's wait for the whole account, which nobody waits for by chance.
LASTING = "too_many_posts"
HANG_SECONDS = 2.0


class Wrong(Exception):
    """The answer is an error of the Graph API."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status, self.document = status, {"error": {"code": code, "message": message, "type": "OAuthException"}}


@dataclass
class Provider:
    """What the provider knows. ``tokens`` by account; a container can be published after ``looks`` at it."""

    tokens: dict[str, str]
    looks: int = 1
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    media: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    trouble: list[list[str]] = field(default_factory=list)
    rate: float = 0
    usage: int = 0
    quota: int = 50
    insights: dict[str, dict[str, int]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def next_trouble(self, operation: str) -> str:
        """What goes wrong with this call; empty: nothing."""
        with self.lock:
            for entry in self.trouble:
                if entry[0] == operation:
                    self.trouble.remove(entry)
                    return entry[1]
        # Chance, not secrecy.
        return random.choice([*TROUBLE.keys() - {LASTING}]) if random.random() < self.rate else ""  # noqa: S311

    def operation(self, method: str, parts: list[str]) -> str:
        """The name of a call."""
        match method, parts:
            case "POST", [_, "media"]:
                return "prepare"
            case "POST", [_, "media_publish"]:
                return "publish"
            case "GET", [_, "media" | "stories"]:
                return "recent"
            case "GET", [_, "content_publishing_limit"]:
                return "quota"
            case "GET", [_, "insights"]:
                return "insights"
            case "GET", [_]:
                return "state"
        raise Wrong(100, f"there is no {method} {'/'.join(parts)}", 404)

    def do(self, operation: str, parts: list[str], fields: dict[str, str], token: str) -> dict[str, Any]:
        """Do what is asked. Raises Wrong."""
        with self.lock:
            if token not in self.tokens.values():
                raise Wrong(190, "no such token", 401)
            account = next(number for number, known in self.tokens.items() if known == token)
            if operation in ("prepare", "publish", "recent", "quota") and parts[0] != account:
                raise Wrong(200, "that account is somebody else's", 403)
            done: dict[str, Any] = getattr(self, f"_{operation}")(account, parts, fields)
            return done

    def _prepare(self, account: str, parts: list[str], fields: dict[str, str]) -> dict[str, Any]:
        story = fields.get("media_type") == "STORIES"
        if fields.keys() != ({"image_url", "media_type"} if story else {"image_url", "caption"}):
            raise Wrong(100, f"these fields are not right: {sorted(fields)}")
        if not fields["image_url"].startswith("https://") or len(fields.get("caption", "")) > 2200:
            raise Wrong(9004, "the picture cannot be fetched, or the caption is too long")
        number = str(17_000_000_000 + len(self.containers))
        kind = "stories" if story else "media"
        self.containers[number] = {**fields, "account": account, "kind": kind, "looks": self.looks, "state": ""}
        return {"id": number}

    def _container(self, account: str, number: str) -> dict[str, Any]:
        container = self.containers.get(number)
        if container is None or container["account"] != account:
            raise Wrong(100, f"there is no {number}")
        return container

    def _state(self, account: str, parts: list[str], fields: dict[str, str]) -> dict[str, Any]:
        container = self._container(account, parts[0])
        container["looks"] -= 1
        state = container["state"] or ("IN_PROGRESS" if container["looks"] > 0 else "FINISHED")
        return {"id": parts[0], "status_code": state}

    def _publish(self, account: str, parts: list[str], fields: dict[str, str]) -> dict[str, Any]:
        container = self._container(account, fields["creation_id"])
        if container["state"] or container["looks"] > 0:
            raise Wrong(9007, f"the container cannot be published: {container['state'] or 'IN_PROGRESS'}")
        container["state"] = "PUBLISHED"
        number = str(18_000_000_000 + len(self.media))
        self.media.append(
            {
                "id": number,
                "account": account,
                "kind": container["kind"],
                "caption": container.get("caption", ""),
                "image_url": container["image_url"],
                "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000"),
            }
        )
        return {"id": number}

    def _recent(self, account: str, parts: list[str], fields: dict[str, str]) -> dict[str, Any]:
        found = [one for one in reversed(self.media) if (one["account"], one["kind"]) == (account, parts[1])]
        wanted = [name for name in fields["fields"].split(",") if parts[1] == "media" or name != "caption"]
        return {"data": [{name: one[name] for name in wanted} for one in found[: int(fields["limit"])]]}

    def _quota(self, account: str, parts: list[str], fields: dict[str, str]) -> dict[str, Any]:
        used = sum(one["account"] == account for one in self.media)
        return {"data": [{"quota_usage": used, "config": {"quota_total": self.quota, "quota_duration": 86400}}]}

    def _insights(self, account: str, parts: list[str], fields: dict[str, str]) -> dict[str, Any]:
        if not any(one["id"] == parts[0] and one["account"] == account for one in self.media):
            raise Wrong(100, f"there is no {parts[0]}")
        seen = self.insights.get(parts[0], {"reach": 100, "likes": 7})
        wanted = fields["metric"].split(",")
        return {"data": [{"name": name, "values": [{"value": seen.get(name, 0)}]} for name in wanted]}


class Handler(BaseHTTPRequestHandler):
    """HTTP in front of it."""

    protocol_version = "HTTP/1.1"
    provider: Provider

    def do_GET(self) -> None:  # the name that the base class calls
        """Answer."""
        self._answer("GET")

    def do_POST(self) -> None:  # the name that the base class calls
        """Answer."""
        self._answer("POST")

    def log_message(self, format: str, *args: object) -> None:  # its name in the base class
        """Be quiet."""

    def _answer(self, method: str) -> None:
        address = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if address.path == "/control":
            self._control(body)
            return
        text = address.query if method == "GET" else body
        fields = dict(urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)))
        # The first part is the version of the API.
        parts = address.path.strip("/").split("/")[1:]
        trouble, operation, status, document = "", "", 200, {}
        try:
            operation = self.provider.operation(method, parts)
            trouble = self.provider.next_trouble(operation)
            if not trouble or TROUBLE[trouble]:
                token = self.headers.get("authorization", "").removeprefix("Bearer ")
                document = self.provider.do(operation, parts, fields, token)
        except Wrong as wrong:
            status, document = wrong.status, wrong.document
        finally:
            self.provider.calls.append({"operation": operation, "at": time.time(), "trouble": trouble})
        self._send(status, document, trouble)

    def _send(self, status: int, document: dict[str, Any], trouble: str) -> None:
        headers = {"x-app-usage": json.dumps({"call_count": self.provider.usage, "total_time": 1, "total_cputime": 1})}
        content = json.dumps(document).encode()
        if trouble.startswith("hang"):
            time.sleep(HANG_SECONDS)
        if trouble.startswith(("hang", "drop")):
            self.close_connection = True
            return
        if trouble == "429":
            status, content, headers["retry-after"] = 429, json.dumps(Wrong(4, "too many calls").document).encode(), "1"
        elif trouble == "too_many_posts":
            status, content = 400, json.dumps(Wrong(9, "too many posts").document).encode()
        elif trouble == "locked_out":
            status, content = 401, json.dumps(Wrong(190, "the token has ended").document).encode()
        elif trouble.startswith("500"):
            status, content = 500, b'{"error": {"code": 2, "is_transient": true, "message": "try again"}}'
        elif trouble == "garbage":
            content = b"<html>\xff\x00 so sorry"
        elif trouble == "wrong_type":
            content = b'{"id": 17, "status_code": 5, "data": [{"timestamp": "soon"}]}'
        elif trouble == "redirect":
            status, content, headers["location"] = 302, b"", "http://127.0.0.1:1/elsewhere"
        self.send_response(status)
        for name, value in {**headers, "content-type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if trouble == "cut":
            self.close_connection = True
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def _control(self, body: str) -> None:
        provider = self.provider
        with provider.lock:
            for name, value in (json.loads(body) if body else {}).items():
                if name == "states":
                    for number, state in value.items():
                        provider.containers[number]["state"] = state
                else:
                    setattr(provider, name, value)
            self._send(
                200,
                {"media": provider.media, "calls": provider.calls, "containers": provider.containers},
                "",
            )


def main() -> None:
    """Serve at the port given, for the accounts given as number=token."""
    address, port, *accounts = sys.argv[1:]
    Handler.provider = Provider(dict(entry.split("=", 1) for entry in accounts))
    ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
