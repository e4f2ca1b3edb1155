"""What somebody on the same network sees of the Pi."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from functools import partial

import machine
import pytest


def test_n8n_answers_through_the_proxy() -> None:
    answer = machine.request("/healthz")
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


def test_editor_is_served_with_security_headers() -> None:
    answer = machine.request("/")
    assert answer.status == 200
    assert "<html" in answer.body
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["server"] == "nginx", "tells its version"


PONG, CLOSE = 0x8A, 0x88


def push(cookie: str, kind: int) -> tuple[str, bytes]:
    """The status line of n8n's answer to an editor that wants news by WebSocket, and the first frame of a kind.

    The editor has sent a ping; what does not come within half a minute raises TimeoutError.
    """
    lines = [
        *("GET /rest/push?pushRef=site HTTP/1.1", f"Host: {machine.ADDRESS}", f"Origin: https://{machine.ADDRESS}"),
        *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", f"Cookie: {cookie}"),
    ]
    context = ssl.create_default_context(cadata=machine.certificate())
    with (
        socket.create_connection((machine.ADDRESS, 443), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=machine.ADDRESS) as secure,
    ):
        secure.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = secure.makefile("rb")
        status = answer.readline().decode().strip()
        while answer.readline().strip():
            pass
        if " 101 " not in status:
            return status, b""
        # A frame of its own kind with four bytes, masked with nothing.
        secure.sendall(b"\x89\x84\0\0\0\0echo")
        frame = b""
        while frame[:1] != bytes([kind]):
            head = answer.read(2)
            frame = head + answer.read(head[1])
        return status, frame


def test_editor_gets_its_news_by_websocket() -> None:
    login = {"emailOrLdapLoginId": "owner@example.com", "password": machine.secrets()["n8n_owner_password"]}
    entered = machine.request("/rest/login", login, {"browser-id": "site"})
    assert entered.status == 200, entered
    status, pong = push(entered.headers["Set-Cookie"].partition(";")[0], PONG)
    assert " 101 " in status
    assert pong == b"\x8a\x04echo"
    # n8n lets a stranger in, and closes when it has looked.
    assert push("n8n-auth=nothing", CLOSE)[1] == b"\x88\0"


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/", "/METRICS", "/healthz/readiness", "/Healthz/readiness", "/WEBHOOK/health-echo"]
)
def test_what_tells_about_the_inside_stays_inside(path: str) -> None:
    assert machine.request(path).status == 404


def test_limiter_answers_through_the_proxy() -> None:
    answer = machine.request("/api/rate-limit/check", {"api": "instagram", "key": "outside", "cost": 0})
    assert answer.status == 200
    assert answer.json()["allowed"] is True
    assert answer.json()["remaining"] == 180


def test_limits_of_the_owner_are_in_force() -> None:
    answers = [
        machine.request("/api/rate-limit/check", {"api": "telegram", "key": "limit", "cost": 15}) for _ in range(3)
    ]
    assert [answer.json()["allowed"] for answer in answers][:2] == [True, True]
    assert machine.request("/api/rate-limit/check", {"api": "nobody"}).status == 404


def test_oversized_body_is_refused() -> None:
    assert machine.request("/api/rate-limit/check", b"x" * 17000).status == 413
    assert machine.request("/webhook/order-intake", b"x" * 1_100_000).status == 413


def flood(path: str, callers: int = 20, each: int = 10) -> list[int]:
    """The statuses of many requests at once.

    All connections stand before the first one asks: on a busy computer handshakes take longer than answers.
    """
    context = ssl.create_default_context(cadata=machine.certificate())
    ask = f"GET {path} HTTP/1.1\r\nHost: {machine.ADDRESS}\r\n"
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(
                context.wrap_socket(
                    socket.create_connection((machine.ADDRESS, 443), timeout=60), server_hostname=machine.ADDRESS
                )
            )
            for _ in range(callers)
        ]
        for connection in connections:
            connection.sendall(f"{ask}\r\n".encode() * (each - 1) + f"{ask}Connection: close\r\n\r\n".encode())
        answers = [b"".join(iter(partial(connection.recv, 65536), b"")) for connection in connections]
    return [int(status) for answer in answers for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


def test_flood_is_cut() -> None:
    answers = flood("/webhook/nothing")
    assert len(answers) == 200
    assert 429 in answers
    # It is cut, not shut out: soon the same caller is served again.
    deadline = time.monotonic() + 30
    while machine.request("/webhook/health-echo?token=after").status == 429 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert machine.request("/webhook/health-echo?token=after").status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = version
    context.maximum_version = version
    with (
        socket.create_connection((machine.ADDRESS, 443), timeout=10) as connection,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(connection),
    ):
        pass


def test_plain_http_is_not_served_on_the_tls_port() -> None:
    with socket.create_connection((machine.ADDRESS, 443), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert b" 400 " in connection.recv(200)
