"""The entrance as it was configured, with an nginx of its own before a service that tells what reaches it."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

PORT = 8443
# Beside the stack's own names, so that both can be there. `n8n` and `rate_limiter` answer with what they were asked.
START = """
set -eu
docker network create proxy-test
docker run --detach --name proxy-test-echo --network proxy-test --network-alias n8n --network-alias rate_limiter \
  PYTHON python3 -c "$1"
docker run --detach --name proxy-test --network proxy-test --publish 0.0.0.0:8443:8443 --user 101:101 --read-only \
  --cap-drop ALL --tmpfs /tmp:mode=1777 --volume /etc/pi-commerce/proxy:/etc/pi-commerce:ro PROXY \
  nginx -c /etc/pi-commerce/nginx.conf -g 'daemon off;'
"""
STOP = "docker rm --force proxy-test proxy-test-echo && docker network rm proxy-test"
ECHO = """
import http.server, json, threading
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("upgrade") == "websocket":
            self.send_response(101)
            self.send_header("upgrade", "websocket")
            self.send_header("connection", "upgrade")
            self.end_headers()
            self.wfile.write(self.rfile.readline().upper())
            return
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
servers = [http.server.ThreadingHTTPServer(("", port), Echo) for port in (5678, 3001)]
threading.Thread(target=servers[0].serve_forever).start()
servers[1].serve_forever()
"""
PATHS = {"editor": "/", "webhook": "/webhook/x", "api": "/api/rate-limit/check"}
UNITS = {"k": 1024, "m": 1024**2}

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def nginx(host: Host, variables: dict[str, Any]) -> Iterator[None]:
    """An nginx with the written configuration."""
    images = variables["images"]
    script = START.replace("PYTHON", images["python"]).replace("PROXY", images["proxy"])
    host.check_output("bash -c %s start %s", script, ECHO)
    try:
        deadline = time.monotonic() + 60
        while host.run("docker exec proxy-test wget -q -O - http://n8n:5678/").rc != 0:
            assert time.monotonic() < deadline, host.run("docker logs proxy-test-echo").stderr
        yield
    finally:
        host.check_output(STOP)


@pytest.fixture
def ask(nginx: None, entrance: Ask) -> Ask:
    """Asks that nginx, over TLS with its certificate, which has to name this machine."""
    return lambda path, *arguments, **more: entrance(path, *arguments, port=PORT, **more)


def test_certificate_is_the_given_one_or_made(host: Host, ask: Ask, variables: dict[str, Any]) -> None:
    assert ask("/proxy-health").status == 200
    lying = host.file("/etc/pi-commerce/proxy/tls/cert.pem").content_string
    given = (Path(os.environ["PI_STATE"]) / "given.pem").read_text()
    assert (lying == given) == bool(variables["proxy_certificate"])


def test_half_a_certificate_is_put_right_and_its_key_is_for_nginx_alone(host: Host) -> None:
    folder = "/etc/pi-commerce/proxy/tls"
    assert "half" not in host.file(f"{folder}/cert.pem").content_string
    for user, allowed in (("101", True), ("65534", False)):
        read = host.run(f"setpriv --reuid {user} --regid {user} --clear-groups cat {folder}/key.pem")
        assert (read.rc == 0) == allowed, user


def test_service_sees_the_visitor_and_not_what_he_says_he_is(ask: Ask) -> None:
    said = ("X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "Forwarded")
    liar = {**dict.fromkeys(said, "192.0.2.1"), "X-Forwarded-Proto": "gopher"}
    seen = json.loads(ask("/webhook/x", headers=liar).body)
    assert seen["path"] == "/webhook/x"
    assert "192.0.2.1" not in seen.values()
    assert seen["x-forwarded-proto"] == "https"


def test_connection_that_is_upgraded_carries_both_ways(nginx: None) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((os.environ["PI_ADDRESS"], PORT), timeout=30) as plain,
        context.wrap_socket(plain) as secure,
    ):
        secure.sendall(b"GET /push HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello\n")
        answer = secure.makefile("rb")
        assert b" 101 " in answer.readline()
        while answer.readline().strip():
            pass
        assert answer.readline() == b"HELLO\n"


@pytest.mark.parametrize(
    ("offer", "taken"),
    [
        ("-tls1_3", True),
        ("-tls1_2 -cipher ECDHE+AESGCM", True),
        ("-tls1_2 -cipher ECDHE+CHACHA20", True),
        # Without forward secrecy, without authenticated encryption, with broken ones, and what came before.
        ("-tls1_2 -cipher kRSA:@SECLEVEL=0", False),
        ("-tls1_2 -cipher ECDHE+AES+SHA256:ECDHE+SHA1:@SECLEVEL=0", False),
        ("-tls1_2 -cipher aNULL:eNULL:3DES:RC4:@SECLEVEL=0", False),
        ("-tls1_1 -cipher ALL:@SECLEVEL=0", False),
        ("-tls1 -cipher ALL:@SECLEVEL=0", False),
    ],
)
def test_only_sound_tls_is_spoken(nginx: None, offer: str, taken: bool) -> None:
    command = ["openssl", "s_client", "-connect", f"{os.environ['PI_ADDRESS']}:{PORT}", "-brief", *offer.split()]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
    told = done.stdout + done.stderr
    # What is not taken is refused by the other side, not by this one's openssl.
    assert ("Ciphersuite:" if taken else " alert ") in told, told


def test_what_tells_about_the_inside_is_not_passed_on(ask: Ask) -> None:
    assert ask("/healthz").status == 200
    for path in ("/metrics", "/metrics/x", "/Metrics", "/healthz/readiness", "/HEALTHZ/readiness", "/Webhook/x"):
        assert ask(path).status == 404, path


@pytest.mark.parametrize("name", PATHS)
def test_largest_body_is_as_declared(ask: Ask, variables: dict[str, Any], name: str) -> None:
    text = variables["proxy_limits"][name]["body"]
    largest = int(text[:-1]) * UNITS[text[-1]]
    assert ask(PATHS[name], b"x" * largest).status == 200
    assert ask(PATHS[name], b"x" * (largest + 1)).status == 413


@pytest.mark.parametrize("name", PATHS)
def test_requests_above_the_burst_are_refused(ask: Ask, variables: dict[str, Any], name: str) -> None:
    limit = variables["proxy_limits"][name]
    number, unit = limit["rate"].split("r/")
    if unit == "s":
        pytest.skip("what a slow machine can send is below this limit; the alternative scenario has lower ones")
    started = time.monotonic()
    passed = 0
    while ask(PATHS[name]).status == 200:
        passed += 1
    earned = int(number) * (time.monotonic() - started) / 60
    assert passed <= limit["burst"] + 1 + earned
