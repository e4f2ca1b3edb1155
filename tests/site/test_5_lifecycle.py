"""A nightly backup, a service switched off and on, a restart of the machine: nothing is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import machine
import pytest
from waiting import wait_until

ORDER = {
    "order_id": "LIFECYCLE-1",
    "source": "facebook",
    "total_cents": 100,
    "currency": "EUR",
    "items": [{"sku": "PEN", "quantity": 1, "price_cents": 100}],
}
# Cron is at it on a machine that is minutes old: it makes the first base.
CRON_SECONDS = 300


@pytest.fixture(scope="module", autouse=True)
def _order() -> None:
    """An order that has to survive everything below."""
    assert machine.order(ORDER).status in (200, 201)


def kept() -> bool:
    """Whether the order is still there, exactly once."""
    return machine.psql("shop", "SELECT count(*) FROM shop.orders WHERE order_id = 'LIFECYCLE-1'") == "1"


def test_automations_that_were_lost_are_brought_back() -> None:
    """The playbook shows its plan; afterwards workflows are active, and their credentials open."""
    machine.pi(f"pi-commerce-backup nightly --wait {CRON_SECONDS}")
    # The moment before the loss: cron ships every few minutes, so the newest state may be the one without them.
    wanted = {"service": "n8n", "at": machine.pi("date --utc '+%Y-%m-%d %H:%M:%SZ'").strip()}
    machine.psql("n8n", "TRUNCATE workflow_entity, credentials_entity CASCADE")
    machine.pi(f"pi-commerce-backup ship --wait {CRON_SECONDS}")
    shown = machine.playbook("restore.yml", "-e", json.dumps(wanted), "--check")
    assert (shown.status, machine.recap(shown.output)["changed"]) == (0, 0), shown.output
    words = re.search(r'--confirm "(.+?)"', shown.output)
    assert words is not None, shown.output
    assert machine.psql("n8n", "SELECT count(*) FROM workflow_entity") == "0"
    restored = machine.playbook("restore.yml", "-e", json.dumps({**wanted, "confirm": words[1]}))
    assert restored.status == 0, restored.output
    # Through the credential of the shop's database, which only n8n's own key opens.
    assert machine.order({**ORDER, "order_id": "LIFECYCLE-2"}).status == 201
    name = re.search(r"`discard (\w+)`", restored.output)
    assert name is not None, restored.output
    discarded = machine.playbook("restore.yml", "-e", f"discard={name[1]}")
    assert discarded.status == 0, discarded.output
    assert "_before_" not in machine.pi("docker volume ls --quiet")


def test_backup_that_is_killed_does_not_stop_the_next() -> None:
    machine.pi("docker pause pi-commerce-postgres-1; timeout --signal=KILL 5 pi-commerce-backup nightly", check=False)
    machine.pi("docker unpause pi-commerce-postgres-1")
    machine.pi(f"pi-commerce-backup ship --wait {CRON_SECONDS}")
    machine.pi("pi-commerce-backup status")


def test_backup_runs_every_night_and_every_few_minutes() -> None:
    hours = machine.pi("cat /etc/cron.d/pi-commerce-backup")
    assert "30 2 * * * root nice ionice -c 3 pi-commerce-backup nightly" in hours
    assert "*/5 * * * * root nice ionice -c 3 pi-commerce-backup ship" in hours
    assert machine.pi("systemctl is-active cron").strip() == "active"


def test_person_gets_an_account_that_opens_with_the_key_alone(tmp_path: Path) -> None:
    key = tmp_path / "key"
    machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    people = [{"name": "anna", "authorized_keys": [key.with_suffix(".pub").read_text().strip()]}]
    for changed in (True, False):
        finished = machine.playbook("playbooks/host.yml", "-e", json.dumps({"base_users": people}))
        assert finished.status == 0, finished.output[-3000:]
        assert bool(machine.recap(finished.output)["changed"]) == changed, finished.output[-3000:]
    options = [
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={machine.STATE}/known_hosts",
    ]
    login = machine.run("ssh", "-i", str(key), *options, f"anna@{machine.ADDRESS}", "sudo id --user")
    assert login.output.strip().endswith("0"), login.output
    assert machine.pi("passwd --status anna").split()[1] == "L"
    stranger = machine.run("ssh", "-i", "/dev/null", *options, f"anna@{machine.ADDRESS}", "true")
    assert stranger.status != 0


def test_service_switched_off_is_gone_and_its_data_stays() -> None:
    without = machine.playbook(
        "site.yml", "-e", json.dumps({"services_enabled": ["postgres", "redis", "rate_limiter", "proxy"]})
    )
    assert without.status == 0, without.output[-4000:]
    assert "n8n" not in machine.pi("docker ps --all --format '{{.Names}}'")
    assert "pi-commerce_n8n_data" in machine.pi("docker volume ls --quiet")
    assert machine.request("/healthz").status == 404
    again = machine.playbook("site.yml")
    assert again.status == 0, again.output[-4000:]
    assert machine.request("/webhook/health-echo?token=back").status == 200
    assert kept()


def test_changed_secret_reaches_its_services() -> None:
    """A password changed in the vault is in force after the next run, in the database and in its client."""
    old = machine.secrets()["n8n_db_password"]
    machine.seal(machine.unseal().replace(old, old[::-1]))
    rotated = machine.playbook("site.yml")
    assert rotated.status == 0, rotated.output[-4000:]
    assert machine.request("/webhook/health-echo?token=rotated").status == 200
    assert machine.recap(machine.playbook("site.yml").output)["changed"] == 0


def status(path: str, body: object = None) -> int:
    """What a webhook answers, 0 while nobody does."""
    try:
        return machine.request(path, body).status
    except OSError:
        return 0


def test_everything_is_back_after_a_restart() -> None:
    machine.make("restart")
    # n8n registers its webhooks one after the other.
    wait_until(lambda: status("/webhook/health-echo?token=restart") == 200, 240, "n8n answers")
    wait_until(lambda: status("/webhook/order-intake", {}) == 403, 240, "n8n looks at orders")
    assert machine.order(ORDER).json()["status"] == "duplicate"
    assert kept()
    after = machine.playbook("site.yml")
    assert after.status == 0, after.output[-4000:]
    assert machine.recap(after.output)["changed"] == 0
