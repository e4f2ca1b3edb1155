"""A name that follows the line's address, against a server that speaks DuckDNS's and Cloudflare's language."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plays
import pytest
import yaml
from dns_services import TOKEN, DnsServices
from pi_ddns import __main__ as program
from pi_ddns import address, settings, state
from pi_ddns.errors import DdnsError
from pi_ddns.state import State

NAMES = {"duckdns": ["corner.duckdns.org"], "cloudflare": ["shop.example", "n8n.shop.example"]}
MOVED = "93.184.216.99"
APIS = {"duckdns": "/duck", "cloudflare": "/cf"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServices]:
    made = DnsServices(tmp_path_factory.mktemp("dns"))
    yield made
    made.shutdown()
    made.server_close()


class Host:
    """A machine with the program; `told` is what was said to pi-commerce-notify."""

    def __init__(self, folder: Path, server: DnsServices, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.server = folder, server
        (folder / "token").write_text(TOKEN + "\n")
        self.configure("duckdns")
        notify = folder / "bin/pi-commerce-notify"
        notify.parent.mkdir()
        notify.write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\ncat >> {folder}/told\n')
        notify.chmod(0o755)
        monkeypatch.setenv("PATH", f"{notify.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def configure(self, provider: str, **changes: Any) -> None:
        """Write the settings."""
        content = {
            "host": "shop-pi",
            "provider": provider,
            "api": self.server.url + APIS[provider],
            "authority": str(self.server.certificate),
            "token_file": str(self.folder / "token"),
            "resolver": f"{self.server.url}/dns-query",
            "names": NAMES[provider],
            "sources": {"4": [f"{self.server.url}/see/first", f"{self.server.url}/see/second"]},
            "folder": str(self.folder / "state"),
            "metrics": str(self.folder / "ddns.prom"),
            "every_minutes": 5,
            "stale_minutes": 60,
            "refresh_hours": 24,
            **changes,
        }
        (self.folder / "settings.json").write_text(json.dumps(content))

    def run(self, *words: str) -> int:
        """Run the program; its exit code."""
        return program.main(["--settings", str(self.folder / "settings.json"), *words])

    def later(self, seconds: float) -> None:
        """Let time pass: what is kept becomes older."""
        path = self.folder / "state/state.json"
        kept = json.loads(path.read_text())
        for name in ("sent_at", "confirmed_at", "begun_at", "until"):
            kept[name] = kept[name] - seconds if kept[name] else 0
        path.write_text(json.dumps(kept))

    def state(self) -> State:
        """What is kept."""
        return state.load(self.folder / "state/state.json", 0)

    def told(self) -> str:
        """What people were told."""
        path = self.folder / "told"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def host(tmp_path: Path, server: DnsServices, monkeypatch: pytest.MonkeyPatch) -> Host:
    server.forget()
    return Host(tmp_path, server, monkeypatch)


def leads_to(server: DnsServices, provider: str) -> set[str]:
    """Where the names lead."""
    if provider == "duckdns":
        return {entry["ip"] for entry in server.duck.values()}
    return {entry["content"] for entry in server.records if entry["type"] == "A"}


@pytest.mark.parametrize("provider", APIS)
def test_address_is_sent_once_and_again_when_it_has_changed(host: Host, server: DnsServices, provider: str) -> None:
    host.configure(provider)
    assert host.run("update") == 0
    assert leads_to(server, provider) == {"93.184.216.34"}
    first = server.changes()
    assert len(first) == len(NAMES[provider])
    assert host.run("update") == 0
    assert server.changes() == first, "nothing has changed"
    server.address = MOVED
    assert host.run("update") == 0
    assert leads_to(server, provider) == {MOVED}
    assert len(server.changes()) == 2 * len(first)
    assert host.run("status") == 0


@pytest.mark.parametrize("provider", APIS)
def test_what_somebody_else_has_changed_there_is_put_right_within_a_day(
    host: Host, server: DnsServices, provider: str
) -> None:
    host.configure(provider)
    host.run("update")
    for entry in server.duck.values():
        entry["ip"] = "192.0.2.1"
    for record in server.records:
        record["content"] = "192.0.2.1"
    host.later(25 * 3600)
    assert host.run("update") == 0
    assert leads_to(server, provider) == {"93.184.216.34"}


def test_proxied_names_stay_proxied_and_other_records_as_they_are(host: Host, server: DnsServices) -> None:
    host.configure("cloudflare", names=["shop.example"])
    mail = {"id": "m", "type": "MX", "name": "shop.example", "content": "mail.example"}
    server.records = [mail, {"id": "a", "type": "A", "name": "shop.example", "content": "192.0.2.1", "proxied": True}]
    assert host.run("update") == 0
    assert server.records[0] == mail
    assert (server.records[1]["content"], server.records[1]["proxied"]) == ("93.184.216.34", True)


def test_both_families_are_sent_together(host: Host, server: DnsServices) -> None:
    server.address = "2606:2800:220:1:248:1893:25c8:1946"
    six = [f"{server.url}/see/first", f"{server.url}/see/third"]
    host.configure("duckdns", sources={"6": six})
    assert host.run("update") == 0
    assert server.duck["corner"]["ipv6"] == server.address
    assert "ip" not in server.duck["corner"]
    host.configure("cloudflare", names=["shop.example"], sources={"6": six})
    assert host.run("update", "--now") == 0
    assert [(one["type"], one["content"]) for one in server.records] == [("AAAA", server.address)]


def test_family_that_nobody_knows_does_not_hold_up_the_other(host: Host, server: DnsServices) -> None:
    six = "2606:2800:220:1:248:1893:25c8:1946"
    four = [f"{server.url}/see/first", f"{server.url}/see/third"]
    host.configure("cloudflare", names=["shop.example"], sources={"4": four, "6": [f"{server.url}/see/six"]})
    server.six = six
    assert host.run("update") == 0
    server.six, server.address = "", MOVED
    assert host.run("update") == 1
    assert {(one["type"], one["content"]) for one in server.records} == {("A", MOVED), ("AAAA", six)}
    assert "IPv6" in host.state().error
    # Nobody knows anything: what was sent before is not said once more.
    server.address = ""
    asked = server.changes()
    host.later(25 * 3600)
    assert host.run("update") == 1
    assert server.changes() == asked


def test_one_source_alone_does_not_move_the_name(host: Host, server: DnsServices) -> None:
    host.run("update")
    server.wrong, server.address = "93.184.216.66", MOVED
    assert host.run("update") == 1
    assert leads_to(server, "duckdns") == {"93.184.216.34"}
    assert "no two sources agree" in host.state().error
    # The one that is wrong says what was sent before: nobody has moved.
    server.wrong, server.address = "93.184.216.66", "93.184.216.34"
    assert host.run("update", "--now") == 0


@pytest.mark.parametrize("told", ["10.0.0.1", "100.64.0.7", "127.0.0.1", "<html>log in</html>", "", "192.168.1.1\n"])
def test_answer_that_is_no_address_of_a_line_is_not_sent(host: Host, server: DnsServices, told: str) -> None:
    server.address = told
    assert host.run("update") == 1
    assert server.changes() == []


def test_address_of_the_other_family_is_refused() -> None:
    with pytest.raises(DdnsError, match="IPv6, not IPv4"):
        address.read("2606:2800:220:1::1\n", 4)


def test_failures_wait_longer_each_time_and_success_ends_them(host: Host, server: DnsServices) -> None:
    server.status = 503
    assert host.run("update") == 1
    waits = []
    for _ in range(6):
        kept = host.state()
        waits.append(round((kept.until - time.time()) / 60))
        asked = len(server.asked)
        assert host.run("update") == 0
        assert len(server.asked) == asked, "the wait is not over"
        host.later(kept.until - time.time() + 1)
        assert host.run("update") == 1
    assert waits == [5, 10, 20, 40, 60, 60]
    server.status = 0
    assert host.run("update", "--now") == 0
    assert (host.state().failures, host.state().error) == (0, "")


def test_line_that_is_down_is_looked_at_every_time_and_spares_the_provider_as_before(
    host: Host, server: DnsServices
) -> None:
    host.run("update")
    server.address = ""
    waits = []
    for _ in range(6):
        host.run("update", "--now")
        waits.append(round((host.state().until - time.time()) / 60))
    assert waits == [5] * 6
    # Back, and elsewhere; the provider has not failed for long.
    server.address, server.status = MOVED, 503
    host.run("update", "--now")
    assert round((host.state().until - time.time()) / 60) == 5


def test_months_of_failures_end_like_minutes_of_them() -> None:
    kept = State(begun_at=1000)
    for _ in range(2000):
        kept.failed(2000, DdnsError("away"), 300)
    assert (kept.failures, kept.until) == (2000, 2000 + state.LONGEST)


def test_provider_that_asks_to_wait_is_left_alone(host: Host, server: DnsServices) -> None:
    server.status, server.headers = 429, {"Retry-After": "1200"}
    host.run("update")
    assert host.state().until - time.time() > 1100


def test_error_answer_that_breaks_off_is_kept_as_a_failure(host: Host, server: DnsServices) -> None:
    server.status, server.headers = 503, {"Transfer-Encoding": "chunked"}
    assert host.run("update") == 1
    assert "answers what is no HTTP (IncompleteRead)" in host.state().error


def test_wait_from_a_clock_that_was_wrong_does_not_count() -> None:
    kept = State(begun_at=1000, failures=1, until=9000000)
    assert kept.due(2000)
    kept.confirmed_at = 9000000
    assert kept.stale(2000, 60)


def test_people_are_told_once_when_it_is_stale_and_when_it_is_over(host: Host, server: DnsServices) -> None:
    host.run("update")
    server.status = 503
    server.address = MOVED
    host.run("update", "--now")
    assert host.told() == "", "an outage of minutes is nobody's business"
    assert host.run("status") == 1
    host.later(3700)
    host.run("update", "--now")
    host.run("update", "--now")
    assert host.told().count("--level warning corner.duckdns.org may lead nowhere") == 1
    assert "DuckDNS: answers 503" in host.told()
    server.status = 0
    assert host.run("update", "--now") == 0
    assert host.told().splitlines()[-3].endswith("--clear")
    assert host.told().count("--key ddns") == 2


@pytest.mark.parametrize("provider", APIS)
def test_wrong_token_is_told_at_once_and_shown_nowhere(
    host: Host, server: DnsServices, provider: str, capfd: pytest.CaptureFixture[str]
) -> None:
    host.configure(provider)
    (host.folder / "token").write_text("wrong-" + TOKEN)
    assert host.run("update") == 2
    assert "may lead nowhere" in host.told()
    assert "ddns_token" in host.told()
    seen = host.told() + "".join(capfd.readouterr()) + (host.folder / "state/state.json").read_text()
    assert "wrong-" not in seen


def test_alarm_is_over_when_it_works_again_and_not_when_something_else_fails(host: Host, server: DnsServices) -> None:
    host.run("update")
    (host.folder / "token").write_text("wrong-" + TOKEN)
    server.address = MOVED
    assert host.run("update") == 2
    server.status = 503
    assert host.run("update", "--now") == 1
    assert "--clear" not in host.told()
    server.status = 0
    (host.folder / "token").write_text(TOKEN)
    assert host.run("update", "--now") == 0
    assert host.told().count("--clear") == 1


def test_token_follows_no_redirect(host: Host, server: DnsServices, capfd: pytest.CaptureFixture[str]) -> None:
    server.moved = True
    assert host.run("update") == 1
    assert "answers 302" in host.state().error
    assert len(server.asked) == 1
    assert TOKEN not in "".join(capfd.readouterr())


def test_server_without_a_trusted_certificate_gets_no_token(host: Host, server: DnsServices) -> None:
    host.configure("duckdns", authority="", sources={"4": [f"{server.url}/see/first"]})
    assert host.run("update") == 1
    assert "certificate verify failed" in host.state().error
    host.configure("duckdns", api="http://127.0.0.1/duck")
    assert host.run("update", "--now") == 2
    assert server.asked == []


def test_names_that_are_not_the_providers_are_refused(host: Host, server: DnsServices) -> None:
    host.configure("duckdns", names=["shop.example"])
    assert host.run("update") == 2
    host.configure("cloudflare", names=["other.test"])
    assert host.run("update", "--now") == 2
    assert "the token sees no zone of it" in host.state().error
    host.configure("cloudflare", names=["shop.example"])
    server.records = [{"id": n, "type": "A", "name": "shop.example", "content": "192.0.2.1"} for n in "ab"]
    assert host.run("update", "--now") == 2
    assert "has 2 A records" in host.state().error
    assert host.run("status") == 2
    server.records.pop()
    assert host.run("update", "--now") == 0
    assert host.run("status") == 0


@pytest.mark.parametrize("provider", APIS)
def test_text_record_comes_and_goes(host: Host, server: DnsServices, provider: str) -> None:
    host.configure(provider)
    name = f"_acme-challenge.{NAMES[provider][0]}"

    def texts() -> list[str]:
        if provider == "duckdns":
            return [entry["txt"] for entry in server.duck.values() if entry.get("txt")]
        return [one["content"] for one in server.records if (one["type"], one["name"]) == ("TXT", name)]

    host.run("update")
    assert host.run("present", "--wait", name, "proof-1") == 0
    assert [text.strip('"') for text in texts()] == ["proof-1"]
    assert leads_to(server, provider) == {"93.184.216.34"}
    assert host.run("absent", name, "proof-1") == 0
    assert texts() == []
    assert leads_to(server, provider) == {"93.184.216.34"}


def test_text_that_nobody_can_read_is_said(
    host: Host, server: DnsServices, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "VISIBLE_SECONDS", 0)
    server.hidden = True
    assert host.run("present", "--wait", "_acme-challenge.corner.duckdns.org", "proof") == 1
    assert "its text cannot be read" in capsys.readouterr().err


def test_resolver_that_does_not_answer_once_is_asked_again(
    host: Host, server: DnsServices, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "VISIBLE_SECONDS", 6)
    text = ("present", "--wait", "_acme-challenge.corner.duckdns.org", "proof")
    server.deaf = 2
    assert host.run(*text) == 0
    assert server.deaf == 0
    monkeypatch.setattr(program, "VISIBLE_SECONDS", 0)
    server.deaf = 1000
    assert host.run(*text) == 1
    assert "after 0 s; 127.0.0.1:" in capsys.readouterr().err


def test_two_at_once_are_refused_and_half_a_state_is_asked_again(host: Host, server: DnsServices) -> None:
    known = settings.load(host.folder / "settings.json")
    with state.locked(known.folder):
        assert host.run("update") == 75
    host.run("update")
    (host.folder / "state/state.json").write_text('{"sent": ')
    assert host.run("update") == 0
    assert len(server.changes()) == 2


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stands for a program that ends with a code."""

    def make(code: int) -> None:
        (tmp_path / "pi-commerce-ddns").write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / "pi-commerce-ddns").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return make


@pytest.mark.parametrize(("code", "well"), [(0, True), (1, True), (2, True), (75, True), (127, False)])
def test_name_that_cannot_be_sent_does_not_keep_the_shop_from_coming_up(
    answers: Callable[[int], None], code: int, well: bool
) -> None:
    answers(code)
    written = yaml.safe_load((plays.ROOT / "roles/ddns/tasks/present.yml").read_text())[-1]["file_tree"]
    assert (subprocess.run(["/bin/sh", "-c", written["apply"]], check=False).returncode == 0) == well


@pytest.mark.parametrize(("code", "well"), [(1, True), (2, False)])
def test_verify_fails_on_what_only_a_person_can_mend(
    tmp_path: Path, answers: Callable[[int], None], code: int, well: bool
) -> None:
    answers(code)
    asked = yaml.safe_load((plays.ROOT / "roles/verify/tasks/main.yml").read_text())[-1]
    status, output = plays.play(tmp_path, [{**asked, "vars": {"ddns_provider": "duckdns"}}])
    assert (status == 0) == well, output


def test_metrics_say_when_it_was_confirmed(host: Host) -> None:
    before = time.time()
    host.run("update")
    lines = dict(line.split() for line in (host.folder / "ddns.prom").read_text().splitlines() if line[0] != "#")
    assert float(lines["pi_ddns_confirmed_timestamp_seconds"]) >= before - 1
    assert lines["pi_ddns_failures"] == "0"


def test_only_root_and_only_with_settings(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (host.folder / "settings.json").write_text("{}")
    assert host.run("update") == 2
    assert "settings.json: is not what the role" in capsys.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert host.run("update") == 2
    assert "is for root only" in capsys.readouterr().err
