"""`make audit` finds what is wrong, calls nothing fine that it could not see, and leaves no trace.

That it finds every drift is shown where the drifts are planted, in test_drift.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import footprint
import machine
import pytest
from footprint import Footprint

# Programs that ansible needs and the audit does not. Root may not run a file that nobody may.
PYTHONS = "$(find /usr/bin /usr/local/bin -name 'python3*' -type f)"
HOT = "/run/hot-board"
BACKUPS = "/var/backups/pi-commerce"
TLS = "/etc/pi-commerce/proxy/tls"
COMMAND = "/usr/local/sbin/pi-commerce-backup"
STATUS = json.dumps({"jobs": {"nightly": {"succeeded": "THEN"}}})
AILING = f"""
set -e
cp -r "$(readlink -f /usr/share/virtual-pi/pi4-4gb)" {HOT}
echo 82000 > {HOT}/sys/class/thermal/thermal_zone0/temp
echo 50005 > "{HOT}/sys/devices/platform/soc/soc:firmware/get_throttled"
cp --archive {TLS}/cert.pem /run/kept-cert.pem
openssl req -x509 -days 5 -subj /CN=soon -key {TLS}/key.pem -out {TLS}/cert.pem 2>&1
# So long ago the first ship could have been.
touch --date '1 hour ago' {COMMAND}
mkdir -p {BACKUPS}
mount -t tmpfs -o size=8m tmpfs {BACKUPS}
sed "s/THEN/$(date --date '4 days ago' +%s)/" > {BACKUPS}/status.json <<< '{STATUS}'
dd if=/dev/zero of={BACKUPS}/rubbish bs=1M count=8 status=none || :
"""
RECOVERED = f"umount {BACKUPS}; mv /run/kept-cert.pem {TLS}/cert.pem; rm -r {HOT}; touch {COMMAND}"


@dataclass(frozen=True)
class Look:
    """An audit, and the machine before and after it."""

    audited: machine.Finished
    before: Footprint
    after: Footprint


@pytest.fixture(scope="module")
def converged(first_run: machine.Finished) -> Look:
    """A machine as it should be, but for its Python, which nobody can run."""
    machine.pi(f"chmod a-x {PYTHONS}")
    try:
        assert machine.pi("python3 -c '' 2>&1 || echo refused").strip().endswith("refused")
        before = footprint.read(machine.pi(footprint.SCRIPT))
        audited = machine.audit()
        return Look(audited, before, footprint.read(machine.pi(footprint.SCRIPT)))
    finally:
        machine.pi(f"chmod a+x {PYTHONS}")


@pytest.fixture(scope="module")
def ailing(first_run: machine.Finished) -> machine.Finished:
    """The audit of a machine that is hot, full, about to lose its certificate, and was not backed up for days."""
    machine.pi(AILING)
    try:
        return machine.audit("-e", f"hardware_root={HOT}")
    finally:
        machine.pi(RECOVERED)


def row(output: str, check: str) -> str:
    """A check's lines in the report, up to the next check's."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{check} "))
    end = next(number for number, line in enumerate(lines[start + 1 :], start + 1) if not line.startswith(" "))
    return "\n".join(lines[start:end])


def test_converged_machine_is_fine_without_python(converged: Look) -> None:
    audited = converged.audited
    assert audited.status == 0, audited.output
    assert "drift" not in audited.output
    for check in ("files", "containers", "databases", "workflows", "certificates", "backup"):
        assert " ok " in row(audited.output, check)


def test_looking_changes_nothing(converged: Look) -> None:
    assert footprint.touched(converged.before, converged.after) == set()


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("temperature", ["failing", "82.0 degrees", "too little voltage", "throttled"]),
        ("certificates", ["failing", "cert.pem: ends in 4 days", "proxy_certificate"]),
        ("disk", ["failing", f"{BACKUPS}: 100 % full", "0 MiB left"]),
        ("backup", ["failing", "nightly: 5760 min ago", "ship: none yet", "pi-commerce-backup status"]),
    ],
)
def test_ailments_are_reported(ailing: machine.Finished, check: str, words: list[str]) -> None:
    assert ailing.status == 1, ailing.output
    for word in words:
        assert word in row(ailing.output, check)


def test_what_cannot_be_looked_at_does_not_pass() -> None:
    machine.pi("chmod a-x /usr/bin/docker")
    try:
        blind = machine.audit()
    finally:
        machine.pi("chmod a+x /usr/bin/docker")
    assert blind.status == 2, blind.output
    for check in ("containers", "databases", "workflows"):
        assert "unknown" in row(blind.output, check)
        assert "ermission denied" in row(blind.output, check)
    assert " ok " in row(blind.output, "files")


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("-e", "ansible_port=1"), {}, ["unknown", "Could not connect"]),
        ((), {"ANSIBLE_VAULT_PASSWORD_FILE": None}, ["vault password"]),
        ((), {"ANSIBLE_VAULT_PASSWORD_FILE": str(machine.ROOT / "LICENSE")}, ["secrets.vault.yml", "vault password"]),
    ],
    ids=["nobody listens", "no vault password", "wrong vault password"],
)
def test_could_not_look_is_an_exit_code_of_its_own(
    arguments: tuple[str, ...], environment: machine.Environment, words: list[str]
) -> None:
    blind = machine.audit(*arguments, environment=environment)
    assert blind.status == 2, blind.output
    for word in words:
        assert word in blind.output


def test_user_who_may_not_become_root_is_told_so() -> None:
    """Without a terminal, where nobody could type a password."""
    machine.pi("useradd --create-home guest && cp -r ~pi/.ssh ~guest && chown -R guest ~guest/.ssh")
    try:
        command = ("setsid", "--wait", "python", "ops/audit.py", machine.INVENTORY, "-e", "ansible_user=guest")
        blind = machine.run(*command)
    finally:
        machine.pi("userdel --remove guest 2>&1")
    assert blind.status == 2, blind.output
    assert "ansible_become_password" in blind.output


def test_no_secret_is_shown(converged: Look, ailing: machine.Finished) -> None:
    shown = converged.audited.output + ailing.output
    assert [name for name, value in machine.secrets().items() if value in shown] == []


def test_pyinfra_itself_knows_the_inventory() -> None:
    """The connector works on pyinfra's own command line too."""
    asked = machine.run(
        "pyinfra", "-y", f"@ansible/{machine.INVENTORY}", "exec", "--", "hostname", environment={"PYTHONPATH": "ops"}
    )
    assert asked.status == 0, asked.output
    assert "shop-pi" in asked.output
