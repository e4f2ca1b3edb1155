"""The machine burns and the controller with it; the owner has the vault password and the keys to the far repository."""

from __future__ import annotations

import secrets
from typing import Any

import loss
import machine
import owner
import pytest

# Where its messages go is a secret that nobody but the owner, or a copy, has.
PEOPLE = ("-e", '{"notify_targets": {"phone": {"url_secret": "notify_phone_url"}}}')


@pytest.fixture(scope="module")
def told(shop: dict[str, Any]) -> dict[str, Any]:
    """What the shop holds since it tells its owner what is wrong."""
    machine.seal(f"{machine.unseal().rstrip()}\nnotify_phone_url: json://127.0.0.1:9/{secrets.token_hex(8)}\n")
    finished = machine.playbook("site.yml", *PEOPLE)
    assert finished.status == 0, finished.output[-4000:]
    loss.save("nightly")
    return owner.everything()


@pytest.fixture(scope="module")
def rebuilt(told: dict[str, Any]) -> machine.Finished:
    """The run that brings the shop onto a new machine."""
    loss.lose_everything(["backup_far_password"])
    loss.new_machine()
    return machine.playbook("rebuild.yml", *PEOPLE)


def test_everything_is_as_it_was(
    told: dict[str, Any], rebuilt: machine.Finished, capsys: pytest.CaptureFixture
) -> None:
    assert rebuilt.status == 0, rebuilt.output[-6000:]
    assert owner.everything() == told
    with capsys.disabled():
        print(f"\n{loss.shown(rebuilt.output)}")


def test_report_is_here_and_on_the_machine(rebuilt: machine.Finished) -> None:
    report = loss.report()
    assert report["machine"] == "virtual Pi"
    assert report["source"]["repository"] == "far"
    assert not report["resumed"]
    assert abs(sum(report["phases"].values()) - report["seconds"]) < 5
    assert {"preflight", "secrets", "images", "data", "services", "proof"} <= set(report["phases"])
    assert "virtual Pi" in machine.pi("cat /var/backups/pi-commerce/rebuild-report.md")


def test_no_secret_is_printed(rebuilt: machine.Finished) -> None:
    assert [name for name, value in machine.secrets().items() if value in rebuilt.output] == []
    assert "AGE-SECRET-KEY" not in rebuilt.output


def test_saving_goes_on_where_it_ended(rebuilt: machine.Finished) -> None:
    owner.sell(1)
    loss.save("ship")
    assert "pi-commerce-backup" in machine.pi("cat /etc/cron.d/pi-commerce-backup")
    machine.pi("pi-commerce-backup status")


def test_nothing_is_left_of_what_stood_in(rebuilt: machine.Finished) -> None:
    assert machine.pi("ls /run | grep rebuild", check=False) == ""
    assert "before" not in machine.pi("docker volume ls --quiet")


def test_next_run_of_the_site_changes_nothing(rebuilt: machine.Finished) -> None:
    after = machine.playbook("site.yml", *PEOPLE)
    assert after.status == 0, after.output[-4000:]
    assert machine.recap(after.output)["changed"] == 0, after.output[-6000:]


def test_owner_is_told_again_until_nobody_wants_to_know(rebuilt: machine.Finished) -> None:
    assert "phone" in machine.pi("pi-commerce-notify --check")
    machine.pi("test -s /etc/pi-commerce/secrets/notify_phone_url")
    without = machine.playbook("site.yml")
    assert without.status == 0, without.output[-4000:]
    machine.pi("test ! -e /etc/pi-commerce/secrets/notify_phone_url")


def test_machine_with_a_shop_is_refused(rebuilt: machine.Finished) -> None:
    refused = machine.playbook("rebuild.yml")
    assert refused.status != 0
    assert "was rebuilt before" in refused.output
    machine.pi("mv /var/backups/pi-commerce/state/rebuild.json /run/mark")
    try:
        refused = machine.playbook("rebuild.yml")
    finally:
        machine.pi("mv /run/mark /var/backups/pi-commerce/state/rebuild.json")
    assert refused.status != 0
    for word in ("holds data already", "pi-commerce_postgres_data", "restore.yml"):
        assert word in refused.output, refused.output
