"""`make bootstrap` and a real SSH server that lets in by a password: a key and Python come onto it, nothing else."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from automation_stack import ROOT
from docker import DockerClient
from docker.models.containers import Container
from redis_server import LABELS, address_of, image_of
from waiting import wait_until

PASSWORD = "Raspberry-77 'and' $more"
# No Python as on a small image; what apt would fetch is beside it.
PREPARE = """
set -eu
useradd --create-home --shell /bin/bash anna
printf 'anna:%s\\n' "$PASSWORD" | chpasswd
echo 'anna ALL=(ALL) ALL' > /etc/sudoers.d/anna && chmod 0440 /etc/sudoers.d/anna
dpkg --remove --force-depends python3 python3-minimal >/dev/null 2>&1
if command -v python3; then exit 1; fi
cat > /usr/local/bin/apt-get <<'STAND_IN'
#!/bin/sh
echo "$@" >> /run/apt-get.log
case "$*" in *install*python3*) ln -s "$(ls /usr/bin/python3.* | head -n 1)" /usr/bin/python3 ;; esac
STAND_IN
chmod 0755 /usr/local/bin/apt-get
mkdir -p /run/sshd && ssh-keygen -A && /usr/sbin/sshd -o PasswordAuthentication=yes
"""
# Everything on it with the times of its contents, but for what is meant to change and what a login leaves.
SNAPSHOT = (
    "find / -xdev ! -type d ! -path '/proc/*' ! -path '/sys/*' ! -path '/home/anna/.ssh/*' ! -path '/run/*' "
    "! -path '/var/log/*' ! -path /usr/bin/python3 ! -path '/var/lib/sudo/*' ! -path '/var/cache/*' "
    "-printf '%p %m %s %T@\\n' | sort"
)


class Machine:
    """A machine in a container, and an inventory that names it."""

    def __init__(self, engine: DockerClient, folder: Path) -> None:
        """Start it, and have its host key known."""
        self.folder = folder
        self.network = engine.networks.create(f"pi-commerce-test-{secrets.token_hex(4)}", internal=True, labels=LABELS)
        self.container: Container = engine.containers.run(
            image_of(engine, "cloud-init"), detach=True, labels=LABELS, network=self.network.name
        )

    def start(self) -> None:
        """Prepare it, and write the inventory."""
        self.shell(PREPARE, PASSWORD=PASSWORD)
        wait_until(lambda: address_of(self.container, 22) is not None, 30, "the SSH server listens")
        host, _ = address_of(self.container, 22) or ("", 0)
        public = self.shell("cat /etc/ssh/ssh_host_ed25519_key.pub").split()
        (self.folder / "known_hosts").write_text(f"{host} {public[0]} {public[1]}\n")
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "anna@home", "-f", str(key)], check=True)
        common = yaml.safe_load((ROOT / "inventory/group_vars/all.yml").read_text())
        variables = {
            **common,
            "ansible_host": host,
            "ansible_user": "anna",
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.folder}/known_hosts -o IdentitiesOnly=yes",
        }
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"pis": {"hosts": {"shop-pi": variables}}}))

    def shell(self, script: str, **environment: str) -> str:
        """Output of a script that has to succeed, as root."""
        code, output = self.container.exec_run(["bash", "-c", script], environment=environment)
        assert code == 0, f"{script}: {output.decode(errors='replace')}"
        return str(output.decode(errors="replace"))

    def bootstrap(self, password: str | None) -> tuple[int, str]:
        """Exit code and everything that was said."""
        environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_VAULT_PASSWORD_FILE"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        if password is not None:
            (self.folder / "password").write_text(password + "\n")
            environment["BOOTSTRAP_PASSWORD_FILE"] = str(self.folder / "password")
        done = subprocess.run(
            [sys.executable, "ops/bootstrap.py", str(self.folder / "hosts.yml"), "shop-pi"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout

    def remove(self) -> None:
        """Leave nothing behind."""
        self.container.remove(force=True)
        self.network.remove()


@pytest.fixture(scope="module")
def machine(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(engine, tmp_path_factory.mktemp("bootstrap"))
    try:
        made.start()
        yield made
    finally:
        made.remove()


def test_refusals_change_nothing(machine: Machine) -> None:
    before = machine.shell(SNAPSHOT)
    status, told = machine.bootstrap(None)
    assert (status, "BOOTSTRAP_PASSWORD_FILE" in told) == (1, True), told
    status, told = machine.bootstrap("wrong")
    assert (status, "does not take this password" in told) == (1, True), told
    known = (machine.folder / "known_hosts").read_text()
    (machine.folder / "known_hosts").write_text("")
    status, told = machine.bootstrap(PASSWORD)
    assert (status, "its host key is not known" in told) == (1, True), told
    # A machine that nobody knows has not seen the password, nor was its key taken over.
    assert (machine.folder / "known_hosts").read_text() == ""
    (machine.folder / "known_hosts").write_text(known)
    assert machine.shell(SNAPSHOT) == before
    machine.shell("[ ! -e /home/anna/.ssh ]")


def test_key_and_python_come_onto_it_and_nothing_else(machine: Machine) -> None:
    before = machine.shell(SNAPSHOT)
    status, told = machine.bootstrap(PASSWORD)
    assert status == 0, told
    assert "the key opens, Python is /usr/bin/python3" in told
    assert "--ask-become-pass" in told
    assert PASSWORD not in told
    key = (machine.folder / "key.pub").read_text().strip()
    assert machine.shell("grep . /home/anna/.ssh/authorized_keys").splitlines() == [key]
    assert machine.shell("stat --format '%a %U %G' /home/anna/.ssh /home/anna/.ssh/authorized_keys").splitlines() == [
        "700 anna anna",
        "600 anna anna",
    ]
    assert "install python3" in machine.shell("cat /run/apt-get.log")
    assert machine.shell(SNAPSHOT) == before
    assert machine.shell("grep -rl Raspberry-77 /tmp /home /run || [ $? = 1 ]") == ""


def test_once_the_key_opens_no_password_is_wanted(machine: Machine) -> None:
    before = machine.shell("cat /home/anna/.ssh/authorized_keys")
    status, told = machine.bootstrap(None)
    assert status == 0, told
    assert machine.shell("cat /home/anna/.ssh/authorized_keys") == before
