"""What somebody on the same network sees of the Pi."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import machine
import pytest

# What the catalog publishes, and SSH.
DECLARED = {22, 443}


async def open_ports(address: str) -> set[int]:
    """Every TCP port that accepts a connection."""
    limit = asyncio.Semaphore(1000)

    async def probe(port: int) -> int | None:
        async with limit:
            try:
                # A closed port refuses at once; only a busy computer takes long to answer for an open one.
                _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), timeout=30)
            except (OSError, TimeoutError):
                return None
            writer.close()
            return port

    found = await asyncio.gather(*(probe(port) for port in range(1, 65536)))
    return {port for port in found if port is not None}


def test_only_declared_ports_are_open() -> None:
    assert asyncio.run(open_ports(machine.ADDRESS)) == DECLARED


def test_the_scan_notices_an_open_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in asyncio.run(open_ports("127.0.0.1"))


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


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/healthz/readiness"])
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


def test_flood_is_cut() -> None:
    async def flood() -> list[int]:
        return await asyncio.gather(
            *(asyncio.to_thread(lambda: machine.request("/webhook/nothing").status) for _ in range(150))
        )

    assert 429 in asyncio.run(flood())
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
