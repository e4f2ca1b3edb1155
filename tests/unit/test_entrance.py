"""The entrance's certificates by real openssl, Cloudflare's lists by a real server; nginx with them: molecule/proxy."""

from __future__ import annotations

import http.server
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from dns_services import certificate
from pi_entrance import __main__ as program
from pi_entrance import acme, cloudflare, settings, tls
from pi_entrance.errors import EntranceError

NAMES = ["192.168.7.10", "shop-pi", "localhost"]
V4 = ["173.245.48.0/20", "103.21.244.0/22", "104.16.0.0/13", "104.24.0.0/14"]
V6 = ["2400:cb00::/32", "2606:4700::/32"]


class Host:
    """A machine with the program; `told` is what was said to pi-commerce-notify, `read` how often nginx reads anew."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in ("private", "proxy/tls", "bin"):
            (folder / name).mkdir(parents=True)
        (folder / "private/cloudflare-shipped.txt").write_text("\n".join(V4 + V6) + "\n")
        notify = folder / "bin/pi-commerce-notify"
        notify.write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\ncat >> {folder}/told\n')
        notify.chmod(0o755)
        monkeypatch.setenv("PATH", f"{notify.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        self.configure()

    def configure(self, way: str = "lan", **changes: Any) -> None:
        """Write the settings."""
        content = {
            "way": way,
            "given": False,
            "host": "shop-pi",
            "names": NAMES,
            "folder": str(self.folder / "private"),
            "proxy": str(self.folder / "proxy"),
            "owner": os.getuid(),
            "reload": f"echo >> {self.folder}/read",
            "acme_server": "https://127.0.0.1:1/dir",
            "acme_email": "",
            "acme_authority": "",
            "cloudflare_lists": [],
            "cloudflare_authority": "",
            **changes,
        }
        (self.folder / "settings.json").write_text(json.dumps(content))

    def run(self, *words: str) -> int:
        """Run the program; its exit code."""
        return program.main(["--settings", str(self.folder / "settings.json"), *words])

    def text(self, path: str) -> str:
        """A file of the machine, empty where there is none."""
        return (self.folder / path).read_text() if (self.folder / path).exists() else ""

    def pair(self) -> tuple[str, str]:
        """Certificate and key in force."""
        return self.text("proxy/tls/cert.pem"), self.text("proxy/tls/key.pem")

    def leaf(self) -> x509.Certificate:
        """The certificate in force."""
        return x509.load_pem_x509_certificates(self.pair()[0].encode())[0]

    def age(self, days: int) -> None:
        """Replace the certificate in force by one that ends in so many days, of the same authority."""
        folder = self.folder
        (folder / "leaf.cnf").write_text(tls.LEAF.format(names=tls.alternative(NAMES)))
        done = subprocess.run(
            ["openssl", "req", "-new", "-key", str(folder / "proxy/tls/key.pem"), "-subj", "/CN=x"],
            capture_output=True,
            text=True,
            check=True,
        )
        signer = ("-CA", str(folder / "private/authority.pem"), "-CAkey", str(folder / "private/authority.key"))
        extensions = ("-extfile", str(folder / "leaf.cnf"), "-extensions", "leaf", "-days", str(days))
        made = subprocess.run(
            ["openssl", "x509", "-req", *signer, "-set_serial", "7", *extensions],
            input=done.stdout,
            capture_output=True,
            text=True,
            check=True,
        )
        (folder / "proxy/tls/cert.pem").unlink()
        (folder / "proxy/tls/cert.pem").write_text(made.stdout + self.text("private/authority.pem"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


# --- the own authority -------------------------------------------------------------------------------------------


def test_first_certificate_is_for_the_names_and_for_a_year(host: Host) -> None:
    assert host.run("apply") == 0
    leaf = host.leaf()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(entry.value) for entry in names} == set(NAMES)
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 397
    modes = {name: (host.folder / name).stat().st_mode & 0o777 for name in ("proxy/tls/key.pem", "proxy/tls/cert.pem")}
    assert modes == {"proxy/tls/key.pem": 0o400, "proxy/tls/cert.pem": 0o444}
    assert (host.folder / "private/authority.key").stat().st_mode & 0o777 == 0o600
    assert host.text("read")
    # Whoever trusts the authority trusts the entrance.
    context = ssl.create_default_context(cadata=host.text("private/authority.pem"))
    assert len(context.get_ca_certs()) == 1
    assert host.run("status") == 0


def test_second_run_changes_nothing(host: Host) -> None:
    host.run("apply")
    before, read = host.pair(), host.text("read")
    assert host.run("renew") == 0
    assert (host.pair(), host.text("read")) == (before, read)
    # Other files of nginx's may be why it is applied.
    assert host.run("apply") == 0
    assert (host.pair(), host.text("read")) == (before, f"{read}\n")


@pytest.mark.parametrize(("days", "renewed"), [(31, False), (29, True), (0, True)])
def test_it_is_renewed_before_it_ends_by_the_same_authority(host: Host, days: int, renewed: bool) -> None:
    host.run("apply")
    authority = host.text("private/authority.pem")
    host.age(days)
    before = host.pair()
    assert host.run("renew") == 0
    assert (host.pair() != before) == renewed
    assert host.text("private/authority.pem") == authority


def test_names_that_change_within_the_house_need_no_new_authority(host: Host) -> None:
    host.run("apply")
    authority = host.text("private/authority.pem")
    host.configure(names=["10.1.2.3", "shop.lan", "shop-pi", "localhost"])
    assert host.run("apply") == 0
    assert host.text("private/authority.pem") == authority
    assert tls.covers(host.pair()[0], ["shop.lan", "10.1.2.3", "shop-pi", "localhost"])


def test_name_that_the_authority_may_not_vouch_for_makes_a_new_one_and_people_know(host: Host) -> None:
    host.run("apply")
    authority = host.text("private/authority.pem")
    host.configure(names=["shop.example", "shop-pi", "localhost"])
    assert host.run("apply") == 0
    assert host.text("private/authority.pem") != authority
    assert "devices have to trust a new certificate" in host.text("told")


def test_stolen_authority_cannot_play_a_bank(host: Host) -> None:
    host.run("apply")
    authority, key = host.folder / "private/authority.pem", host.folder / "private/authority.key"
    for name in ("bank.example", "93.184.216.34", "2606:4700::1"):
        with pytest.raises(EntranceError, match=r"openssl verify|permitted subtree"):
            tls.issue(authority, key, [name])
    assert tls.issue(authority, key, ["router.lan", "192.168.1.1"])


@pytest.mark.parametrize("damage", ["cert", "key", "other"])
def test_half_a_pair_is_put_right(host: Host, damage: str) -> None:
    host.run("apply")
    tls_folder = host.folder / "proxy/tls"
    if damage == "other":
        first = host.pair()
        host.run("renew", "--force")
        (tls_folder / "key.pem").chmod(0o600)
        (tls_folder / "key.pem").write_text(first[1])
    else:
        (tls_folder / f"{damage}.pem").unlink()
    assert host.run("renew") == 0
    assert tls.belong(*host.pair())


def test_certificate_that_was_given_is_the_owners_affair_until_it_ends(host: Host) -> None:
    host.run("apply")
    host.age(5)
    before = host.pair()
    host.configure(given=True)
    assert host.run("renew") == 0
    assert host.pair() == before
    assert "--level warning the entrance's certificate ends soon" in host.text("told")
    assert host.run("status") == 1


def test_nginx_that_refuses_is_said(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.configure(reload="echo 'nginx: [emerg] no' >&2; exit 1")
    assert host.run("apply") == 2
    assert "nginx goes on with what it had: nginx: [emerg] no" in capsys.readouterr().err


def test_public_authority_that_does_not_answer_leaves_a_certificate_of_our_own(host: Host) -> None:
    host.configure("acme", names=["shop.example", "shop-pi"])
    assert host.run("apply") == 1
    assert tls.covers(host.pair()[0], ["shop.example", "shop-pi"])
    # A shop that strangers' browsers warn of is nothing that may go unnoticed for a year.
    assert "--level warning no public certificate for the entrance" in host.text("told")
    assert host.run("status") == 1
    host.configure("acme")
    assert host.run("renew") == 1, "no public authority vouches for an address"


def test_certificate_of_another_name_or_authority_does_not_pass_for_the_one_that_is_wanted(host: Host) -> None:
    authority, key = host.folder / "public.pem", host.folder / "public.key"
    for path, text in zip((authority, key), tls.make_authority("public", ["shop.example"]), strict=True):
        path.write_text(text)
    issued = tls.issue(authority, key, ["shop.example"])
    first = {"names": ["shop.example", "shop-pi"], "acme_server": "https://127.0.0.1:1/first"}
    host.configure("acme", **first)
    made = acme.made(settings.load(host.folder / "settings.json"))
    made.mkdir(parents=True)
    for folder, names in (
        (made, ("fullchain.pem", "privkey.pem")),
        (host.folder / "proxy/tls", ("cert.pem", "key.pem")),
    ):
        for name, text in zip(names, issued, strict=True):
            (folder / name).write_text(text)

    def told() -> str:
        (host.folder / "told").unlink(missing_ok=True)
        assert host.run("renew") == 1, "no authority answers"
        assert host.pair() == issued
        return host.text("told").splitlines()[0]

    assert (told(), host.run("status")) == ("--key entrance --clear", 0)
    assert f"CERTDIR={made.parent}\n" in host.text("private/acme/config")
    wanted = "--key entrance --level warning no public certificate for the entrance"
    for changes in ({"names": ["other.example"]}, {"acme_server": "https://127.0.0.1:1/second"}):
        host.configure("acme", **{**first, **changes})
        assert (told(), host.run("status")) == (wanted, 1)


def test_authority_is_printed_for_devices(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("authority") == 2
    host.run("apply")
    capsys.readouterr()
    assert host.run("authority") == 0
    assert capsys.readouterr().out == host.text("private/authority.pem")


def test_only_root_and_only_with_settings(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (host.folder / "settings.json").write_text('{"way": "tunnel"}')
    assert host.run("status") == 2
    assert "settings.json: is not what the role" in capsys.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert host.run("status") == 2
    assert "is for root only" in capsys.readouterr().err


# --- Cloudflare's addresses --------------------------------------------------------------------------------------


class Lists(http.server.ThreadingHTTPServer):
    """Both lists, as they are told now; `status` takes the place of the answer."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.certificate, key = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.forget()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def forget(self) -> None:
        self.lists, self.status = {"/ips-v4": "\n".join(V4) + "\n", "/ips-v6": "\n".join(V6)}, 200

    def urls(self) -> list[str]:
        return [f"https://127.0.0.1:{self.server_address[1]}{path}" for path in self.lists]


class _Talk(http.server.BaseHTTPRequestHandler):
    server: Lists

    def do_GET(self) -> None:
        text = self.server.lists[self.path].encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Location", self.server.urls()[0])
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: Any) -> None: ...


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lists]:
    made = Lists(tmp_path_factory.mktemp("lists"))
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def behind(host: Host, lists: Lists) -> Host:
    """A machine behind Cloudflare."""
    lists.forget()
    host.configure("cloudflare", cloudflare_lists=lists.urls(), cloudflare_authority=str(lists.certificate))
    assert host.run("apply") == 0
    return host


def test_list_of_the_first_day_needs_no_fetch(behind: Host, lists: Lists) -> None:
    include = behind.text("proxy/cloudflare.conf")
    for network in V4 + V6:
        assert f"set_real_ip_from {network};" in include
        assert f"  {network} 1;" in include
    before = include
    assert behind.run("addresses") == 0
    assert behind.text("proxy/cloudflare.conf") == before
    assert "have changed" not in behind.text("told")


def test_network_that_comes_or_goes_is_taken_over_and_told(behind: Host, lists: Lists) -> None:
    lists.lists["/ips-v4"] = "\n".join([*V4[1:], "131.0.72.0/22"])
    assert behind.run("addresses") == 0
    include = behind.text("proxy/cloudflare.conf")
    assert "131.0.72.0/22" in include
    assert V4[0] not in include
    assert f"+ 131.0.72.0/22\n- {V4[0]}\n" in behind.text("told")
    # A converge keeps what was fetched.
    assert behind.run("apply") == 0
    assert behind.text("proxy/cloudflare.conf") == include


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "<html>log in</html>",
        "0.0.0.0/0",
        "128.0.0.0/7",
        "10.0.0.0/8",
        "2000::/3",
        "104.16.0.1/13",
        "x" * 70000,
        "é",
    ],
    ids=["empty", "page", "all", "wide", "private", "wide6", "bits", "large", "letters"],
)
def test_list_that_cannot_be_right_changes_nothing_and_is_told(behind: Host, lists: Lists, wrong: str) -> None:
    before = behind.text("proxy/cloudflare.conf")
    lists.lists["/ips-v4"] = wrong
    assert behind.run("addresses") == 1
    assert behind.text("proxy/cloudflare.conf") == before
    assert "Cloudflare's addresses are not up to date" in behind.text("told")


@pytest.mark.parametrize("status", [302, 403, 503])
def test_list_that_is_not_told_changes_nothing(behind: Host, lists: Lists, status: int) -> None:
    before = behind.text("proxy/cloudflare.conf")
    lists.status = status
    assert behind.run("addresses") == 1
    assert behind.text("proxy/cloudflare.conf") == before


def test_list_with_half_of_it_gone_is_asked_about(behind: Host, lists: Lists) -> None:
    before = behind.text("proxy/cloudflare.conf")
    lists.lists = {"/ips-v4": V4[0], "/ips-v6": V6[0]}
    assert behind.run("addresses") == 1
    assert behind.text("proxy/cloudflare.conf") == before
    assert behind.run("addresses", "--force") == 0
    assert V4[1] not in behind.text("proxy/cloudflare.conf")


def test_server_that_nobody_vouches_for_is_not_believed(behind: Host, lists: Lists) -> None:
    behind.configure("cloudflare", cloudflare_lists=lists.urls())
    assert behind.run("addresses") == 1
    behind.configure("cloudflare", cloudflare_lists=["http://127.0.0.1/ips-v4"])
    assert behind.run("addresses") == 1


def test_list_that_comes_with_the_project_is_one_that_would_be_taken() -> None:
    path = Path(__file__).resolve().parents[2] / "files/cloudflare/networks.txt"
    networks = cloudflare.parse(path.read_text(), str(path))
    assert len(networks) > 15
    assert {":" in network for network in networks} == {True, False}


def test_settings_that_are_missing_are_named() -> None:
    with pytest.raises(KeyError):
        settings.parse({"way": "lan"})
