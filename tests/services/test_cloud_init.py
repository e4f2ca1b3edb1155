"""What `make first-boot` writes, read by what it is for: cloud-init's own schema, cloud-init itself, netplan."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import first_boot
import pytest
from docker import DockerClient
from docker.models.containers import Container
from first_boot import Machine
from redis_server import LABELS, image_of

BOOT = "/boot/firmware"
KEYS = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMwwgGl anna@home", "ssh-rsa AAAAB3NzaC1yc2E= a: 'b' # c")
NETWORKS: dict[str, dict[str, Any]] = {
    "dhcp": {},
    "static": {"address": "192.168.7.10/24", "gateway": "192.168.7.1", "name_servers": ["192.168.7.1", "9.9.9.9"]},
    "static IPv6": {"address": "fd12::10/64", "gateway": "fd12::1", "name_servers": ["fd12::1"]},
}
LINE = "console=tty1 root=PARTUUID=4e639091-02 rootwait"
# Nothing is running in the container that could be started, and nothing in it is to be restarted.
PREPARE = f"""
set -eu
echo 'datasource_list: [NoCloud]' > /etc/cloud/cloud.cfg.d/99-seed.cfg
mkdir -p /var/lib/cloud/seed {BOOT}
ln -s {BOOT} /var/lib/cloud/seed/nocloud
echo '{LINE}' > {BOOT}/cmdline.txt
for name in systemctl shutdown; do
  printf '#!/bin/sh\\necho "%s $@" >> /run/called\\ncase "$*" in *is-enabled*) exit 1 ;; esac\\n' $name \
    > /usr/local/sbin/$name
  chmod 0755 /usr/local/sbin/$name
done
"""
# A stage ends with a warning's code where something, such as the kernel's host name, is not a container's to change.
# What came of it is judged by each test.
STAGES = """
for stage in "init --local" init "modules --mode=config" "modules --mode=final"; do
  timeout 120 cloud-init $stage || true
done
for _ in $(seq 100); do ! grep -q '^shutdown' /run/called || break; sleep 0.1; done
"""


class Fresh:
    """A system that has never been started, in a container without a network."""

    def __init__(self, engine: DockerClient) -> None:
        """Start the container."""
        self.container: Container = engine.containers.run(
            image_of(engine, "cloud-init"), detach=True, labels=LABELS, network_mode="none"
        )

    def run(self, script: str) -> tuple[int, str]:
        """Exit code and output of a script as root."""
        code, output = self.container.exec_run(["bash", "-c", script])
        return int(code), output.decode(errors="replace")

    def shell(self, script: str) -> str:
        """Output of a script that has to succeed."""
        code, output = self.run(script)
        assert code == 0, f"{script}: {output}"
        return output

    def put(self, files: dict[str, str]) -> None:
        """Write files to the boot partition, which others on this machine may not read."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(text.encode()), 0o600
                archive.addfile(entry, io.BytesIO(text.encode()))
        assert self.container.put_archive(BOOT, packed.getvalue())


@pytest.fixture
def fresh(engine: DockerClient) -> Iterator[Fresh]:
    made = Fresh(engine)
    try:
        made.shell(PREPARE)
        yield made
    finally:
        made.container.remove(force=True)


def written(network: str) -> dict[str, str]:
    return first_boot.files(Machine("shop-pi", "corner-shop", "anna", "192.168.7.10", KEYS, NETWORKS[network]), None)


SCHEMAS = {"user-data": "cloud-config", "network-config": "network-config"}


@pytest.mark.parametrize("network", NETWORKS)
def test_files_are_what_the_schema_and_netplan_want(fresh: Fresh, network: str) -> None:
    fresh.put(written(network))
    for name, schema in SCHEMAS.items():
        told = fresh.shell(f"cloud-init schema --schema-type {schema} --config-file {BOOT}/{name}")
        assert "Valid schema" in told
        assert "eprecat" not in told
    netplan = f"install -D -m 0600 {BOOT}/network-config /tmp/n/etc/netplan/a.yaml; netplan generate --root-dir /tmp/n"
    # Nobody to reload: no udev runs in the container.
    assert fresh.shell(netplan).strip() in ("", "Failed to send reload request: No such file or directory")
    unit = fresh.shell("cat /tmp/n/run/systemd/network/*.network").splitlines()
    chosen = NETWORKS[network]
    assert "Name=e*" in unit
    assert ("DHCP=ipv4" in unit) != bool(chosen)
    if chosen:
        assert {f"Address={chosen['address']}", f"Gateway={chosen['gateway']}"} <= set(unit)
        assert {f"DNS={server}" for server in chosen["name_servers"]} <= set(unit)


def test_schema_finds_a_slip_of_the_pen(fresh: Fresh) -> None:
    files = written("dhcp")
    fresh.put({"user-data": files["user-data"].replace("lock_passwd:", "lock_password:")})
    code, told = fresh.run(f"cloud-init schema --config-file {BOOT}/user-data")
    assert code != 0, told


def test_first_boot_makes_a_machine_that_ansible_can_come_into(fresh: Fresh) -> None:
    fresh.put(written("static"))
    told = fresh.shell(STAGES)
    assert sorted(fresh.shell("cat /home/anna/.ssh/authorized_keys").splitlines()) == sorted(KEYS), told
    assert fresh.shell("stat --format '%a %U' /home/anna/.ssh /home/anna/.ssh/authorized_keys").split() == [
        *("700", "anna"),
        *("600", "anna"),
    ]
    # No password opens it, and there is nobody else.
    assert fresh.shell("passwd --status anna").split()[1] == "L"
    assert fresh.shell("awk -F: '$2 ~ /^[$]/ { print $1 }' /etc/shadow") == ""
    assert fresh.shell("awk -F: '$3 >= 1000 && $3 < 60000 { print $1 }' /etc/passwd").split() == ["anna"]
    assert fresh.shell("runuser -u anna -- sudo --non-interactive id --user 2>/dev/null").strip() == "0"
    settings = fresh.shell("mkdir -p /run/sshd; sshd -T").splitlines()
    assert {"passwordauthentication no", "pubkeyauthentication yes"} <= set(settings)
    assert fresh.shell("cat /etc/hostname").strip() == "corner-shop"
    assert "192.168.7.10/24" in fresh.shell("cat /etc/netplan/*.yaml")
    # The kernel's line, and one restart for it.
    assert fresh.shell(f"cat {BOOT}/cmdline.txt").strip() == f"{LINE} {' '.join(first_boot.KERNEL_WORDS)}"
    called = fresh.shell("cat /run/called").splitlines()
    assert "systemctl enable --now ssh" in called
    assert [line for line in called if line.startswith("shutdown")] == ["shutdown -r now"]


def test_line_that_was_merged_before_needs_no_restart(fresh: Fresh) -> None:
    fresh.put(written("dhcp"))
    fresh.shell(f"sed -i 's/$/ {' '.join(first_boot.KERNEL_WORDS)}/' {BOOT}/cmdline.txt")
    before = fresh.shell(f"cat {BOOT}/cmdline.txt")
    fresh.shell(STAGES + "true")
    assert fresh.shell(f"cat {BOOT}/cmdline.txt") == before
    assert "shutdown" not in fresh.shell("cat /run/called")
