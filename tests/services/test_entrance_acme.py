"""A certificate of a public authority, issued and renewed for real: dehydrated, pebble, and the name proven by DNS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from automation_stack import ROOT
from cryptography import x509
from dns_services import TOKEN
from docker import DockerClient
from docker.models.containers import Container
from redis_server import LABELS, image_of
from waiting import wait_until

FOLDER = "/srv/remote"
PRIVATE, PROXY = "/etc/pi-commerce/entrance", "/etc/pi-commerce/proxy"
NAMES = {"duckdns": "corner.duckdns.org", "cloudflare": "n8n.shop.example"}
APIS = {"duckdns": "/duck", "cloudflare": "/cf"}
PROGRAMS = f"""
set -eu
for name in ddns entrance; do
  printf '#!/bin/sh\\nexport PYTHONPATH=/usr/local/lib/pi-commerce/%s\\nexec python3 -m pi_%s "$@"\\n' $name $name \
    > /usr/local/sbin/pi-commerce-$name
  chmod 0755 /usr/local/sbin/pi-commerce-$name
done
mkdir -p {FOLDER} {PRIVATE} {PROXY}/tls /etc/pi-commerce/ddns /etc/pi-commerce/secrets
touch {PRIVATE}/cloudflare-shipped.txt
"""


class Pi:
    """The container: a machine with both programs, and what it talks to."""

    def __init__(self, engine: DockerClient) -> None:
        """Start all of it."""
        inside = {
            "files/ddns/pi_ddns": "/usr/local/lib/pi-commerce/ddns/pi_ddns",
            "files/common/pi_common": "/usr/local/lib/pi-commerce/ddns/pi_common",
            "files/entrance": "/usr/local/lib/pi-commerce/entrance",
            "tests": "/srv/tests",
        }
        self.container: Container = engine.containers.run(
            image_of(engine, "acme-host"),
            detach=True,
            labels=LABELS,
            network_mode="none",
            volumes={str(ROOT / here): {"bind": there, "mode": "ro"} for here, there in inside.items()},
        )
        self.shell(PROGRAMS)
        self.start("services")
        self.start("authority")

    def start(self, what: str) -> None:
        """Start what it talks to, and wait for it."""
        command = ["env", "PYTHONPATH=/srv/tests", "python3", "/srv/tests/services/acme_remote.py", FOLDER, what]
        self.container.exec_run(command, detach=True)
        port = {"services": "8443", "authority": "14000"}[what]
        listening = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
        wait_until(lambda: self.run(listening)[0] == 0, 60, f"{what} listen")

    def stop(self, what: str) -> None:
        """Kill it: nobody answers any more."""
        self.shell(f"kill -9 $(cat {FOLDER}/{what}.pid)")

    def run(self, script: str) -> tuple[int, str]:
        """Exit code and output of a script as root."""
        code, output = self.container.exec_run(["bash", "-c", script])
        return int(code), output.decode(errors="replace")

    def shell(self, script: str) -> str:
        """Output of a script that has to succeed."""
        code, output = self.run(script)
        assert code == 0, f"{script}: {output}"
        return output

    def configure(self, provider: str, token: str = TOKEN) -> None:
        """A machine on its first day, whose name is the provider's affair."""
        ddns = {
            "host": "shop-pi",
            "provider": provider,
            "api": f"https://127.0.0.1:8443{APIS[provider]}",
            "authority": f"{FOLDER}/dns.pem",
            "token_file": "/etc/pi-commerce/secrets/ddns_token",
            "resolver": "https://127.0.0.1:8443/dns-query",
            "names": [NAMES[provider]],
            "sources": {"4": ["https://127.0.0.1:8443/see/first"]},
            "folder": "/var/lib/pi-commerce/ddns",
            "metrics": "/var/lib/pi-commerce/ddns.prom",
            "every_minutes": 5,
            "stale_minutes": 60,
            "refresh_hours": 24,
        }
        entrance = {
            "way": "acme",
            "given": False,
            "host": "shop-pi",
            "names": [NAMES[provider], "shop-pi", "localhost"],
            "folder": PRIVATE,
            "proxy": PROXY,
            "owner": 101,
            "reload": f"echo >> {FOLDER}/reloads",
            "acme_server": "https://127.0.0.1:14000/dir",
            "acme_email": "",
            "acme_authority": f"{FOLDER}/authority/dns.pem",
            "cloudflare_lists": [],
            "cloudflare_authority": "",
        }
        self.shell(f"rm -rf {PRIVATE}/acme {PRIVATE}/authority.* {PROXY}/tls/* {FOLDER}/reloads")
        for path, content in (
            ("ddns/settings.json", json.dumps(ddns)),
            ("entrance/settings.json", json.dumps(entrance)),
            ("secrets/ddns_token", token),
        ):
            self.shell(f"cat > /etc/pi-commerce/{path} <<'E'\n{content}\nE")

    def certificate(self) -> x509.Certificate:
        """The one in force."""
        return x509.load_pem_x509_certificates(self.shell(f"cat {PROXY}/tls/cert.pem").encode())[0]

    def proof(self, name: str) -> str:
        """What everybody can read of the proof that a name is ours."""
        question = f"https://127.0.0.1:8443/dns-query?name=_acme-challenge.{name}"
        return self.shell(f"curl --silent --show-error --cacert {FOLDER}/dns.pem '{question}'")

    def issuer(self) -> str:
        """Who vouches for it."""
        return self.certificate().issuer.rfc4514_string()


@pytest.fixture(scope="module")
def pi(engine: DockerClient) -> Iterator[Pi]:
    made = Pi(engine)
    yield made
    made.container.remove(force=True, v=True)


def names(certificate: x509.Certificate) -> set[str]:
    """Whom it is for."""
    found: Any = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(entry.value) for entry in found}


@pytest.mark.parametrize("provider", APIS)
def test_certificate_is_issued_put_into_force_and_renewed_before_it_ends(pi: Pi, provider: str) -> None:
    pi.configure(provider)
    pi.shell("pi-commerce-entrance apply")
    first = pi.certificate()
    assert names(first) == {NAMES[provider]}
    assert "Pebble" in pi.issuer()
    assert pi.shell(f"stat -c '%a %u' {PROXY}/tls/key.pem {PROXY}/tls/cert.pem") == "400 101\n444 101\n"
    reloads = pi.shell(f"cat {FOLDER}/reloads")
    # Nothing of the proof is left to be read by others.
    assert "Answer" not in pi.proof(NAMES[provider])
    # Nothing is due.
    assert pi.shell("pi-commerce-entrance renew") == ""
    assert pi.certificate().serial_number == first.serial_number
    assert pi.shell(f"cat {FOLDER}/reloads") == reloads
    # One that ends within the month: dehydrated sees that it is due by itself.
    made = f"{PRIVATE}/acme/certs/*/{NAMES[provider]}"
    soon = f"-days 20 -subj /CN=x -addext subjectAltName=DNS:{NAMES[provider]} -out soon.pem"
    pi.shell(f"cd {made} && openssl req -x509 -key privkey.pem {soon} && cat soon.pem > $(readlink -f cert.pem)")
    pi.shell("pi-commerce-entrance renew")
    assert pi.certificate().serial_number != first.serial_number
    assert "Pebble" in pi.issuer()
    assert pi.shell(f"cat {FOLDER}/reloads") == reloads + "\n"


def test_proof_may_begin_with_a_dash(pi: Pi) -> None:
    """One in 64 does; no option is meant."""
    pi.configure("duckdns")
    pi.shell("pi-commerce-entrance apply")
    hook, name = f"{PRIVATE}/acme/hook.sh", NAMES["duckdns"]
    pi.shell(f"{hook} deploy_challenge {name} unused -0proof")
    assert "-0proof" in pi.proof(name)
    pi.shell(f"{hook} clean_challenge {name} unused -0proof")
    assert "Answer" not in pi.proof(name)


def test_authority_that_is_away_leaves_what_is_there(pi: Pi) -> None:
    pi.configure("duckdns")
    pi.stop("authority")
    try:
        code, told = pi.run("pi-commerce-entrance apply")
        assert (code, "failed: dehydrated" in told) == (1, True), told
        # A certificate of our own, until it is back.
        assert "pi-commerce shop-pi" in pi.issuer()
    finally:
        pi.start("authority")
    assert pi.run("pi-commerce-entrance status")[0] == 1
    pi.shell("pi-commerce-entrance renew")
    assert "Pebble" in pi.issuer()
    pi.shell("pi-commerce-entrance status")


def test_name_that_cannot_be_proven_is_said(pi: Pi) -> None:
    pi.configure("duckdns", token="wrong-token")
    code, told = pi.run("pi-commerce-entrance apply")
    assert code == 1
    assert "DuckDNS takes no change" in told
    assert "wrong-token" not in told
    assert "pi-commerce shop-pi" in pi.issuer()
