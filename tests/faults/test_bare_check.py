"""A check of the whole site on a machine that has nothing yet passes, tells what would come, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import footprint
import machine
import pytest
from footprint import Footprint

STATE = Path(f"{machine.STATE}-bare")
# The network after that of the machine under test.
FIRST, SECOND, THIRD = machine.NETWORK.split(".")
NETWORK = f"{FIRST}.{SECOND}.{int(THIRD) + 1}"
ENVIRONMENT: machine.Environment = {
    "PI_STATE": str(STATE),
    "PI_NAME": f"{machine.ENVIRONMENT['PI_NAME']}-bare",
    "PI_NETWORK": NETWORK,
    "PI_ADDRESS": f"{NETWORK}.10",
    "ANSIBLE_VAULT_PASSWORD_FILE": str(STATE / "vault-password"),
}
# Ansible's own folder: made at its first visit, and empty again when it leaves.
ANSIBLE = {"/home/pi/.ansible", "/home/pi/.ansible/tmp"}


def make(*arguments: str) -> None:
    """Run a make target for the bare machine."""
    finished = machine.run("make", *arguments, environment=ENVIRONMENT)
    assert finished.status == 0, finished.output[-6000:]


def look() -> Footprint:
    """The bare machine's footprint now."""
    command = machine.ssh("sudo bash -s", STATE, f"{NETWORK}.10")
    return footprint.read(machine.run(*command, stdin=footprint.SCRIPT, apart=True).output)


@pytest.fixture(autouse=True)
def _site() -> None:
    """The converged machine is not needed here."""


@pytest.fixture(scope="module")
def bare() -> Iterator[None]:
    """A virtual Pi that has booted for the first time; the preflight only reads."""
    make("down")
    make("up", "PLAYBOOK=playbooks/preflight.yml")
    yield
    make("down")


@pytest.mark.usefixtures("bare")
def test_check_of_a_bare_machine_passes_and_leaves_no_trace() -> None:
    before = look()
    assert "/etc/hostname" in before
    checked = machine.run(
        "ansible-playbook", "-i", "inventory/virtual", "site.yml", "--check", "--diff", environment=ENVIRONMENT
    )
    assert checked.status == 0, checked.output[-4000:]
    assert machine.recap(checked.output)["changed"] >= 10
    for words in ("/etc/docker/daemon.json", "/etc/pi-commerce/compose/n8n.yml", "Health echo", "pi-commerce-backup"):
        assert words in checked.output, words
    assert footprint.touched(before, look()) - ANSIBLE == set()
    assert not (STATE / "secrets.vault.yml").exists()
