"""The owner's session ends cleanly whatever happens in it, against a loopback server with scripted answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from n8n_api import N8n, N8nError, OwnerSession

COOKIE = {"set-cookie": "n8n-auth=abc; Path=/; Secure"}
KEY = {"data": {"id": "k1", "rawApiKey": "raw"}}


class Script(BaseHTTPRequestHandler):
    """Answers "METHOD path" from `answers` (the last one again and again) and keeps what was asked."""

    answers: dict[str, list[tuple[int, dict[str, str], Any]]]
    asked: list[tuple[str, dict[str, str], Any]]

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        request = f"{self.command} {self.path}"
        self.asked.append((request, dict(self.headers), json.loads(body) if body else None))
        queue = self.answers.get(request, [(200, {}, {})])
        status, headers, document = queue.pop(0) if len(queue) > 1 else queue[0]
        text = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = do

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def script() -> type[Script]:
    login: list[tuple[int, dict[str, str], object]] = [(200, COOKIE, {})]
    return type(
        "Answers",
        (Script,),
        {
            "asked": [],
            "answers": {
                "POST /rest/login": login,
                "GET /rest/api-keys": [(200, {}, {"data": {"items": []}})],
                "POST /rest/api-keys": [(200, {}, KEY)],
            },
        },
    )


@pytest.fixture
def n8n(script: type[Script]) -> Iterator[N8n]:
    server = HTTPServer(("127.0.0.1", 0), script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield N8n("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def requests(script: type[Script]) -> list[str]:
    return [request for request, _, _ in script.asked]


def session(n8n: N8n, *verbs: str) -> OwnerSession:
    return OwnerSession(n8n, "owner@shop.test", "pass", set(verbs))


def test_key_has_only_the_scopes_it_needs_and_goes_again(n8n: N8n, script: type[Script]) -> None:
    with session(n8n, "unpublish", "create", "delete credential") as owner:
        owner.unpublish("w1")
        owner.delete_credential("c1")
    assert requests(script) == [
        "POST /rest/login",
        "GET /rest/api-keys",
        "POST /rest/api-keys",
        "POST /api/v1/workflows/w1/unpublish",
        "DELETE /api/v1/credentials/c1",
        "DELETE /rest/api-keys/k1",
        "POST /rest/logout",
    ]
    made = script.asked[2]
    assert made[2]["scopes"] == ["credential:delete", "workflow:deactivate"]
    assert made[1]["cookie"] == "n8n-auth=abc"
    assert made[1]["browser-id"] == script.asked[0][1]["browser-id"]
    assert script.asked[3][1]["x-n8n-api-key"] == "raw"


def test_key_that_a_killed_run_left_goes_and_no_other(n8n: N8n, script: type[Script]) -> None:
    left = [{"id": "k0", "label": "pi-commerce"}, {"id": "own", "label": "of a person"}]
    script.answers["GET /rest/api-keys"] = [(200, {}, {"data": {"items": left}})]
    with session(n8n, "publish"):
        assert requests(script)[1:] == ["GET /rest/api-keys", "DELETE /rest/api-keys/k0", "POST /rest/api-keys"]
    assert "DELETE /rest/api-keys/own" not in requests(script)


def test_key_goes_when_a_step_fails(n8n: N8n, script: type[Script]) -> None:
    script.answers["POST /api/v1/workflows/w1/publish"] = [(400, {}, {"message": "Unrecognized node type: x"})]
    with (
        pytest.raises(N8nError, match=r"/publish \(400\): Unrecognized node type: x"),
        session(n8n, "publish") as owner,
    ):
        owner.publish("w1")
    assert requests(script)[-2:] == ["DELETE /rest/api-keys/k1", "POST /rest/logout"]


def test_without_a_key_it_still_logs_out(n8n: N8n, script: type[Script]) -> None:
    script.answers["POST /rest/api-keys"] = [(403, {}, {"message": "Plan lacks license"})]
    with pytest.raises(N8nError, match="Plan lacks license"), session(n8n, "publish"):
        pytest.fail("not reached")
    assert requests(script)[-1] == "POST /rest/logout"


def test_a_login_that_comes_too_soon_is_repeated_once(n8n: N8n, script: type[Script]) -> None:
    soon = (429, {"retry-after": "0.05"}, {"message": "Too many requests"})
    script.answers["POST /rest/login"] = [soon, (200, COOKIE, {})]
    with session(n8n, "publish"):
        assert requests(script).count("POST /rest/login") == 2
    script.answers["POST /rest/login"] = [soon]
    with pytest.raises(N8nError, match=r"refused the login of its owner owner@shop.test \(429"), session(n8n):
        pytest.fail("not reached")


def test_an_n8n_that_is_away_is_not_awaited_for_ever() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = N8n("127.0.0.1", free.getsockname()[1])
        with pytest.raises(N8nError, match=r"was not ready within 0 s"):
            away.wait_until_ready(0.1)
        with pytest.raises(N8nError, match=r"did not answer POST /rest/login"), session(away):
            pytest.fail("not reached")
