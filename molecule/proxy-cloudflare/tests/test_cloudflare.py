"""The entrance behind Cloudflare, with visitors in networks of the Pi: Cloudflare's, the VPN's, and somebody's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

# Their addresses are what nginx sees; nothing leaves the Pi.
NETWORKS = {"cloudflare": "104.16.7.0/24", "vpn": "10.66.0.0/24", "somebody": "198.51.100.0/24"}
START = """
set -eu
for pair in NETWORKS; do docker network create --subnet "${pair#*=}" "proxy-${pair%%=*}"; done
docker run --detach --name proxy-test-echo --network proxy-somebody --network-alias n8n --network-alias rate_limiter \
  PYTHON python3 -c "$1"
docker create --name proxy-test --network proxy-somebody --user 101:101 --read-only --cap-drop ALL \
  --tmpfs /tmp:mode=1777 --volume /etc/pi-commerce/proxy:/etc/pi-commerce:ro PROXY \
  nginx -c /etc/pi-commerce/nginx.conf -g 'daemon off;'
docker network connect --alias proxy-test proxy-cloudflare proxy-test
docker network connect --alias proxy-test proxy-vpn proxy-test
docker start proxy-test
for pair in NETWORKS; do
  docker run --detach --name "proxy-from-${pair%%=*}" --network "proxy-${pair%%=*}" \
    --volume /run/proxy-test:/run/proxy-test:ro PYTHON sleep infinity
done
"""
NAMES = " ".join(["proxy-test", "proxy-test-echo", *(f"proxy-from-{name}" for name in NETWORKS)])
MADE = " ".join(f"proxy-{name}" for name in NETWORKS)
STOP = f"docker rm --force {NAMES}; docker network rm {MADE}; rm -rf /run/proxy-test"
ECHO = """
import http.server, json, threading
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
servers = [http.server.ThreadingHTTPServer(("", port), Echo) for port in (5678, 3001)]
threading.Thread(target=servers[0].serve_forever).start()
servers[1].serve_forever()
"""
# Certificates: one of the authority that the entrance knows, one of another.
SIGN = """
set -eu
cd /run/proxy-test
for kind in right foreign; do
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pull -keyout $kind.key -out $kind.csr
  openssl x509 -req -in $kind.csr -CA $kind-ca.pem -CAkey $kind-ca.key -set_serial 7 -days 2 -out $kind.pem
  cat $kind.key >> $kind.pem
done
chmod 0444 right.pem foreign.pem
"""
ASK = """
import json, ssl, sys, urllib.error, urllib.request
path, certificate, headers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
context = ssl._create_unverified_context()
if certificate:
    context.load_cert_chain(f"/run/proxy-test/{certificate}.pem")
asked = urllib.request.Request(f"https://proxy-test:8443{path}", headers=headers)
try:
    answer = urllib.request.urlopen(asked, context=context)
except urllib.error.HTTPError as refused:
    answer = refused
print(json.dumps([answer.status, answer.read().decode(), dict(answer.headers)]))
"""

Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def nginx(host: Host, variables: dict[str, Any]) -> Iterator[None]:
    """An nginx with the written configuration, and the visitors."""
    images, state = variables["images"], Path(os.environ["PI_STATE"])
    host.check_output("rm -rf /run/proxy-test && mkdir -m 0755 /run/proxy-test")
    for name in ("pem", "key"):
        content = (state / f"given.{name}").read_text()
        host.check_output("umask 077; printf %%s %s > %s", content, f"/run/proxy-test/right-ca.{name}")
    make = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=foreign"
    host.check_output(f"cd /run/proxy-test && openssl req {make} -keyout foreign-ca.key -out foreign-ca.pem")
    host.check_output("bash -c %s", SIGN)
    pairs = " ".join(f"{name}={subnet}" for name, subnet in NETWORKS.items())
    script = START.replace("NETWORKS", pairs).replace("PYTHON", images["python"]).replace("PROXY", images["proxy"])
    try:
        host.check_output("bash -c %s start %s", script, ECHO)
        deadline = time.monotonic() + 60
        while host.run("docker exec proxy-test wget -q -O - http://n8n:5678/").rc != 0:
            assert time.monotonic() < deadline, host.run("docker logs proxy-test").stderr
        yield
    finally:
        host.check_output(STOP)


@pytest.fixture
def visit(host: Host, nginx: None) -> Visit:
    """Status, body and headers of an answer to somebody who comes from a network, perhaps with a certificate."""

    def ask(source: str, path: str = "/webhook/x", certificate: str = "", **headers: str) -> Any:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        command = "docker exec %s python3 -c %s %s %s %s"
        return json.loads(host.check_output(command, f"proxy-from-{source}", ASK, path, certificate, json.dumps(given)))

    return ask


def limits_rest(host: Host) -> None:
    """Have nginx forget whom it has counted."""
    host.check_output("docker restart --time 1 proxy-test")
    deadline = time.monotonic() + 60
    while host.run("docker exec proxy-test wget -q -O - http://127.0.0.1:8081/proxy-health").rc != 0:
        assert time.monotonic() < deadline, host.run("docker logs proxy-test").stderr


@pytest.mark.parametrize(
    ("source", "certificate", "status"),
    [
        ("cloudflare", "", 403),
        ("cloudflare", "foreign", 400),
        ("cloudflare", "right", 200),
        ("somebody", "", 403),
        ("somebody", "foreign", 400),
        ("somebody", "right", 403),
        ("vpn", "", 200),
    ],
)
def test_who_comes_from_cloudflare_with_its_certificate_or_through_the_vpn(
    host: Host, visit: Visit, source: str, certificate: str, status: int
) -> None:
    limits_rest(host)
    assert visit(source, certificate=certificate)[0] == status
    # What is open to everybody elsewhere, and only that.
    assert visit(source, "/proxy-health", certificate)[0] == (400 if status == 400 else 200)
    assert visit(source, "/proxy-health/../webhook/x", certificate)[0] == status


def test_address_that_two_jails_ban_is_kept_out_and_nobody_else(host: Host, visit: Visit) -> None:
    limits_rest(host)
    bans, reload = (
        "/etc/pi-commerce/proxy/bans",
        "docker exec proxy-test nginx -c /etc/pi-commerce/nginx.conf -s reload",
    )
    files = f"{bans}/pi-commerce-login.conf {bans}/pi-commerce-requests.conf"
    try:
        host.check_output(f"mkdir -p {bans} && echo '203.0.113.7 1;' | tee {files} && {reload}")
        deadline = time.monotonic() + 60
        while visit("cloudflare", certificate="right", CF_Connecting_IP="203.0.113.7")[0] != 403:
            assert time.monotonic() < deadline, host.run("docker logs proxy-test").stderr
        assert visit("cloudflare", certificate="right", CF_Connecting_IP="203.0.113.8")[0] == 200
    finally:
        host.check_output(f"rm -f {files} && {reload}")


def test_visitors_address_is_taken_from_cloudflare_alone(host: Host, visit: Visit) -> None:
    limits_rest(host)
    _, seen, _ = visit("cloudflare", certificate="right", CF_Connecting_IP="203.0.113.77")
    assert json.loads(seen)["x-forwarded-for"] == "203.0.113.77"
    _, seen, _ = visit("vpn", CF_Connecting_IP="203.0.113.78", X_Forwarded_For="203.0.113.78")
    assert json.loads(seen)["x-forwarded-for"].startswith("10.66.0.")
    assert "203.0.113.78" not in seen
    visit("somebody", CF_Connecting_IP="203.0.113.79")
    log = host.check_output("docker logs proxy-test 2>&1")
    assert "203.0.113.77 - " in log
    assert "203.0.113.78 - " not in log
    assert "203.0.113.79 - " not in log


def test_forged_address_does_not_escape_the_limits(host: Host, visit: Visit) -> None:
    limits_rest(host)
    answers = [visit("vpn", CF_Connecting_IP=f"203.0.113.{number}")[0] for number in range(6)]
    assert 429 in answers
    # Cloudflare's visitors are counted one by one.
    limits_rest(host)
    answers = [visit("cloudflare", certificate="right", CF_Connecting_IP=f"203.0.113.{n}")[0] for n in range(6)]
    assert set(answers) == {200}


def test_class_with_sources_is_for_these_alone(host: Host, visit: Visit) -> None:
    limits_rest(host)
    assert visit("vpn", "/")[0] == 200
    assert visit("cloudflare", "/", "right")[0] == 403
    # Nobody comes from the VPN through Cloudflare.
    assert visit("cloudflare", "/", "right", CF_Connecting_IP="10.66.0.9")[0] == 403
    assert visit("cloudflare", "/webhook/x", "right", CF_Connecting_IP="10.66.0.9")[0] == 403
    assert visit("vpn", "/", CF_Connecting_IP="203.0.113.9")[0] == 200


def test_public_entrance_asks_for_tls_forever(host: Host, visit: Visit) -> None:
    limits_rest(host)
    headers = {name.lower(): value for name, value in visit("vpn")[2].items()}
    assert headers["strict-transport-security"] == "max-age=31536000"
