"""Messages kept, sent, and told of, as cron and people do it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from testinfra.host import Host

LIBRARY = "/usr/local/lib/pi-commerce/notify"
FOLDER = "/var/lib/pi-commerce/notify"
GOT = "/run/molecule-got"
# A server that writes down what it gets; it ends by itself, whatever becomes of the test.
SERVER = f"""
import http.server, signal
signal.alarm(60)
class Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        open("{GOT}", "ab").write(self.path.encode() + b" " + body + b"\\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", 8099), Web).serve_forever()
"""


@pytest.fixture(scope="module")
def targets(variables: dict[str, Any]) -> dict[str, Any]:
    """Who is told."""
    found: dict[str, Any] = variables["notify_targets"]
    return found


def cron(host: Host) -> list[str]:
    """The fields of the line, and how cron runs it."""
    lines = host.file("/etc/cron.d/pi-commerce-notify").content_string.splitlines()
    [path] = [line for line in lines if line.startswith("PATH=")]
    [line] = [line for line in lines if line.endswith("--flush")]
    *times, user, command = line.split(maxsplit=6)
    return [*times, f"runuser -u {user} -- env -i {path} sh -c '{command}'"]


def outbox(host: Host) -> list[str]:
    """Files of messages that wait."""
    return host.run(f"ls {FOLDER}/outbox").stdout.split()


def settled(host: Host) -> None:
    """Wait until no process of the program is left."""
    deadline = time.monotonic() + 60
    while host.run("pgrep -f 'python3 -B -m pi_notif[y]'").rc == 0:
        assert time.monotonic() < deadline, "the program does not end"
        time.sleep(0.1)


def test_cron_comes_when_it_should_and_finds_nothing_to_do(host: Host, variables: dict[str, Any]) -> None:
    line = cron(host)
    assert line[:5] == [f"*/{variables['notify_flush_minutes']}", *"****"]
    done = host.run(line[-1])
    assert (done.rc, done.stdout, done.stderr) == (0, "", "")


def test_message_is_told_now_or_later(host: Host, targets: dict[str, Any], variables: dict[str, Any]) -> None:
    host.check_output("echo 'It is down.' | pi-commerce-notify --level critical --key molecule 'n8n is down'")
    settled(host)
    if not targets:
        assert outbox(host) == []
        journal = host.check_output("journalctl -t pi-commerce-notify --output cat")
        assert "critical, no target takes it: n8n is down | It is down." in journal
        return
    assert len(outbox(host)) == 1
    assert host.run("pi-commerce-notify --status").rc == 1
    host.run(f"rm -f {GOT}")
    host.check_output(f"cat > /run/molecule-server.py <<'E'\n{SERVER}\nE")
    host.check_output("systemd-run --quiet --unit molecule-server python3 /run/molecule-server.py")
    # The waits after what has failed are over.
    host.check_output(f'sed -i \'s/"until": [0-9.]*/"until": 0/\' {FOLDER}/state.json')
    deadline = time.monotonic() + 30
    while host.run("pi-commerce-notify --test").rc:
        assert time.monotonic() < deadline, "the server does not listen"
        time.sleep(0.2)
    host.check_output(cron(host)[-1])
    lines = [line.split(" ", 1) for line in host.file(GOT).content_string.splitlines()]
    told = [(path, json.loads(body)["title"]) for path, body in lines if "test" not in json.loads(body)["title"]]
    assert sorted(told) == [
        ("/hook/molecule-5c21-token", "shop-pi: n8n is down"),
        ("/pager/molecule-77ab-token", "shop-pi: n8n is down"),
    ]
    host.check_output("systemctl stop molecule-server")
    assert outbox(host) == []
    assert host.run("pi-commerce-notify --status").rc == 0
    assert 'pi_notify_delivered_total{target="pager"} 1' in host.check_output(
        f"cat {variables['notify_metrics_folder']}/notify.prom"
    )


def test_urls_are_in_root_only_files_and_nowhere_else(host: Host, targets: dict[str, Any]) -> None:
    for entry in targets.values():
        secret = host.file(f"/etc/pi-commerce/secrets/{entry['url_secret']}")
        assert (secret.mode, secret.user) == (0o400, "root")
    settings = host.file("/etc/pi-commerce/notify/settings.json").content_string
    assert "://" not in settings
    # Written so that the line itself, which the journal has, is none that it finds.
    token = "molecule-[57][0-9a-f]*-token"
    places = f"/etc/pi-commerce/notify /etc/cron.d /var/log {FOLDER}"
    searched = host.run(f"journalctl --output export | grep -ae '{token}'; grep -rse '{token}' {places}")
    assert searched.stdout == ""


def test_nobody_but_root_uses_it_and_old_files_are_gone(host: Host) -> None:
    refused = host.run("runuser -u pi -- pi-commerce-notify --status")
    assert (refused.rc, "for root only" in refused.stderr) == (2, True)
    assert "old.py" not in host.file(f"{LIBRARY}/pi_notify").listdir()
    assert host.file("/etc/pi-commerce/notify").listdir() == ["settings.json"]


def test_url_that_is_missing_or_that_nobody_understands_ends_the_run(apply: Any, variables: dict[str, Any]) -> None:
    own = {name: value for name, value in variables.items() if name.startswith(("notify_", "secrets_values"))}
    unknown = {"phone": {"url_secret": "notify_phone_url"}}
    refused = apply("notify", **{**own, "notify_targets": unknown, "secrets_values": {}})
    assert refused.returncode != 0
    assert "lacks notify_phone_url, which cannot be made here" in refused.stdout
    if own["notify_targets"]:
        slip = {**own["secrets_values"], "notify_hook_url": "jason://127.0.0.1:8099/hook/molecule-5c21-token"}
        refused = apply("notify", **{**own, "secrets_values": slip})
        assert refused.returncode != 0
        assert "target hook: its URL is none that apprise knows" in refused.stdout
        assert "molecule-5c21-token" not in refused.stdout
        assert apply("notify", **own).returncode == 0
