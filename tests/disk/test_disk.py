"""A disk for the data: refused, taken, grown, missing, pulled, put back, cut off from power, and in another machine.

Each goes on where the one before it ended, and in the end all lies on the disk, journal and copies as well.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import machine
import pytest
import vm
from boots import BOOT_SECONDS, boot_id, wait_until_booted
from waiting import wait_until

DISK = f"/dev/disk/by-id/virtio-{vm.SSD_SERIAL}"
PLACES = [
    "/var/lib/docker",
    "/var/lib/docker/volumes",
    "/var/log/journal",
    "/var/backups/pi-commerce",
    "/var/lib/containerd",
]
# What the others stand on: emulated, those take minutes of each start, and their data lies in volumes like these.
SERVICES = json.dumps({"services_enabled": ["postgres", "redis", "rate_limiter", "proxy"]})
# What the program that watches the disk has found last.
STATE = "/var/lib/pi-commerce/storage/state.json"
CUTS = 20
IMAGE = machine.STATE / "ssd.qcow2"


def converge(*arguments: str, **variables: Any) -> machine.Finished:
    """site.yml with the disk."""
    given = ["-e", SERVICES, *(f"-e{name}={value}" for name, value in {"storage_disk": DISK, **variables}.items())]
    return machine.playbook("site.yml", *given, *arguments)


def succeeded(done: machine.Finished) -> dict[str, int]:
    """The counters of a run that must succeed."""
    assert done.status == 0, done.output[-5000:]
    return machine.recap(done.output)


def refused(done: machine.Finished, *words: str) -> None:
    """A run that must be refused, with these words, before it has changed anything."""
    assert done.status != 0, done.output[-3000:]
    for word in words:
        assert word in done.output, done.output[-3000:]
    assert machine.recap(done.output)["changed"] == 0, done.output[-3000:]


def digest() -> str:
    """The beginning of the disk, where labels and tables lie."""
    return machine.pi(f"head --bytes 64M {DISK} | sha256sum")


def mounted() -> dict[str, str]:
    """What is mounted at our places, with its options."""
    shown = machine.pi(
        f"for path in {' '.join(PLACES)}; do"
        " echo $path $(findmnt --noheadings --output OPTIONS --mountpoint $path); done"
    )
    return dict(line.split(" ", 1) for line in shown.splitlines() if " " in line.strip())


def hidden(path: str, command: str) -> str:
    """What a command says of a folder of the system's own disk, whatever is mounted on it. `%s` is the folder."""
    look = f"mkdir -p /run/under && mount --bind / /run/under && {command % f'/run/under{path}'}; umount /run/under"
    return machine.pi(look)


def well() -> bool:
    """Whether all services are."""
    return machine.unwell() == ""


def kept() -> bool:
    """Whether the row is there that was there first."""
    return machine.psql("shop", "SELECT count(*) FROM cut.rows WHERE number = 0") == "1"


def reboot() -> None:
    """Start the machine anew, in order, and wait until it is back."""
    before = boot_id()
    machine.pi("systemctl reboot", check=False)
    wait_until_booted(before, well)


def wait_for(command: str, seconds: int = 300) -> None:
    """Wait until a command succeeds on the machine."""
    wait_until(
        lambda: machine.pi(f"{command} >/dev/null 2>&1 && echo yes", check=False).strip() == "yes",
        seconds,
        lambda: machine.pi(f"{command}; journalctl -u pi-commerce-storage -n 20", check=False),
    )


# --- refused ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _shop() -> Iterator[None]:
    """The machine, converged without its disk, with a row that has to survive all that follows; KEEP leaves it."""
    if machine.KIND != "vm":
        pytest.fail("these tests need a virtual machine (PI_KIND=vm): run `make disk`", pytrace=False)
    machine.make("down")
    made = machine.run("make", "up", "PLAYBOOK=playbooks/preflight.yml")
    assert made.status == 0, made.output[-5000:]
    succeeded(machine.playbook("site.yml", "-e", SERVICES))
    machine.psql("shop", "CREATE SCHEMA cut; CREATE TABLE cut.rows (number bigint PRIMARY KEY)")
    machine.psql("shop", "INSERT INTO cut.rows VALUES (0)")
    yield
    if not os.environ.get("KEEP"):
        machine.make("down")


def test_foreign_data_is_refused_and_untouched() -> None:
    machine.pi(f"mkfs.ext4 -q -F {DISK}")
    before = digest()
    refused(converge(), "ext4 on /dev/vdb", f"storage_erase_serial: {vm.SSD_SERIAL}")
    refused(converge(storage_erase_serial="PI-SSD-0002"), "PI-SSD-0002", vm.SSD_SERIAL)
    assert digest() == before
    machine.pi(f"mkdir -p /mnt/foreign && mount {DISK} /mnt/foreign")
    try:
        refused(converge(storage_erase_serial=vm.SSD_SERIAL), "/dev/vdb is mounted on /mnt/foreign")
    finally:
        machine.pi("umount /mnt/foreign")
    machine.pi(f"e2fsck -fn {DISK}")


def test_wrong_id_is_refused_with_those_that_are_there() -> None:
    refused(converge(storage_disk="/dev/disk/by-id/usb-Nobody-0:0"), "there is no such disk", DISK)
    refused(converge(storage_disk="/dev/vdb"), "below /dev/disk/by-id")


def test_data_on_the_card_is_refused_until_it_may_be_moved() -> None:
    refused(converge(storage_erase_serial=vm.SSD_SERIAL), "which the disk would hide", "storage_move: true")


# --- taken ------------------------------------------------------------------------------------------------


def test_shop_moves_to_the_disk_and_a_second_run_changes_nothing() -> None:
    succeeded(converge(storage_erase_serial=vm.SSD_SERIAL, storage_move="true"))
    assert set(mounted()) == set(PLACES)
    for path in PLACES[:4]:
        assert {"noatime", "errors=remount-ro"} <= set(mounted()[path].split(","))
    assert kept()
    assert succeeded(converge("--diff"))["changed"] == 0
    fstab = machine.pi("cat /etc/fstab")
    assert len(re.findall(r"^UUID=\S+ /var/\S+ ext4 .*0 2$", fstab, re.MULTILINE)) == 4


def test_folders_below_the_mounts_are_empty_and_immutable() -> None:
    for path in ("/var/lib/docker", "/var/log/journal", "/var/backups/pi-commerce", "/var/lib/containerd"):
        assert hidden(path, "ls -A %s") == "", path
        assert "i" in hidden(path, "lsattr -d %s").split()[0], path
        assert "not permitted" in hidden(path, "touch %s/x 2>&1 || true"), path


def test_free_blocks_are_told_once_a_week() -> None:
    assert machine.pi("systemctl is-enabled fstrim.timer").strip() == "enabled"
    machine.pi("fstrim --verbose /var/lib/docker")


def test_file_systems_are_checked_at_boot() -> None:
    reboot()
    assert "systemd-fsck" in machine.pi("systemctl list-units --all --no-legend 'systemd-fsck@*'")
    assert succeeded(converge())["changed"] == 0


# --- grown ------------------------------------------------------------------------------------------------


def test_larger_disk_grows_with_its_data_while_all_runs() -> None:
    size = "stat --file-system --format %b /var/lib/docker/volumes"
    before = int(machine.pi(size))
    (machine.STATE / "ssd-size").write_text("100G")
    old = boot_id()
    machine.make("restart")
    wait_until_booted(old, well)
    started = "docker inspect --format '{{.State.StartedAt}}' pi-commerce-postgres-1"
    since = machine.pi(started)
    assert succeeded(converge())["changed"] > 0
    assert int(machine.pi(size)) > 1.4 * before
    assert machine.pi(started) == since
    assert kept()
    assert succeeded(converge())["changed"] == 0


# --- pulled and put back ----------------------------------------------------------------------------------


def test_disk_that_is_missing_at_boot_keeps_everything_down_and_off_the_card() -> None:
    """It is another, empty one that is plugged in: no volume of ours is there."""
    away = machine.STATE / "ssd.away"
    IMAGE.rename(away)
    machine.make("restart")
    wait_for("systemctl is-active ssh.service", BOOT_SECONDS)
    wait_for("journalctl -b -u pi-commerce-storage | grep 'cannot be mounted'")
    assert "active" not in machine.pi("systemctl is-active docker.service containerd.service", check=False).split()
    assert mounted() == {}
    for path in ("/var/lib/docker", "/var/log/journal", "/var/backups/pi-commerce", "/var/lib/containerd"):
        assert machine.pi(f"ls -A {path}") == "", path
        assert "not permitted" in machine.pi(f"touch {path}/x 2>&1 || true"), path
    assert "The disk with the data" in machine.pi("journalctl -b -t pi-commerce-notify")
    refused(converge(), "is it the right one?")
    IMAGE.unlink()
    away.rename(IMAGE)
    old = boot_id()
    machine.make("restart")
    wait_until_booted(old, well)
    assert kept()
    assert succeeded(converge())["changed"] == 0


def test_disk_that_is_pulled_and_put_back_is_told_and_the_machine_recovers_by_itself() -> None:
    machine.pi("rm -f /var/lib/pi-commerce/storage/rebooted")
    device = machine.pi("readlink -f /sys/block/vdb/device/..").strip()
    machine.pi(f"echo 1 > {device}/remove")
    # The journal was on it.
    wait_for(f"grep 'is not there' {STATE}")
    assert hidden("/var/lib/docker", "ls -A %s") == ""
    old = boot_id()
    machine.pi("echo 1 > /sys/bus/pci/rescan")
    wait_until_booted(old, well)
    assert kept()
    wait_for(f'grep \'"problem": ""\' {STATE}')
    assert succeeded(converge())["changed"] == 0


# --- power cuts -------------------------------------------------------------------------------------------


INSERT = "docker exec -i pi-commerce-postgres-1 psql -U postgres -XAtq -d shop"


class Writer(threading.Thread):
    """Commits one row after the other until it is ended, and remembers those that were confirmed."""

    def __init__(self, first: int) -> None:
        super().__init__(daemon=True)
        self.first = first
        self.confirmed: list[int] = []
        self.client = subprocess.Popen(
            machine.ssh(f"sudo {INSERT}"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def end(self) -> None:
        """A line to a machine that lost its power does not break by itself."""
        self.client.kill()
        self.join()

    def has(self, rows: int) -> bool:
        """Whether so many were confirmed."""
        return len(self.confirmed) >= rows

    def run(self) -> None:
        """Each row is sent when the one before it was confirmed."""
        with self.client as client, suppress(OSError):
            assert client.stdin
            assert client.stdout
            for number in itertools.count(self.first):
                client.stdin.write(b"INSERT INTO cut.rows VALUES (%d) RETURNING number;\n" % number)
                client.stdin.flush()
                if client.stdout.readline().strip() != b"%d" % number:
                    break
                self.confirmed.append(number)


def test_no_confirmed_row_is_lost_in_twenty_power_cuts() -> None:
    """Only the database runs meanwhile."""
    others = "docker ps --format '{{.Names}}' | grep -v postgres"
    stopped = " ".join(machine.pi(others).split())
    machine.pi(f"docker stop {stopped}")
    known: set[int] = set()
    for cut in range(CUTS):
        wait_for(f"echo SELECT 1 | {INSERT}", BOOT_SECONDS)
        writer = Writer(max(known, default=0) + 1_000)
        writer.start()
        # At another moment of its work each time.
        wait_until(partial(writer.has, 10 + 17 * (cut % 7)), BOOT_SECONDS, "rows that are confirmed")
        machine.make("restart")
        writer.end()
        known |= set(writer.confirmed)
        wait_for(f"echo SELECT 1 | {INSERT}", BOOT_SECONDS)
        stored = {int(number) for number in machine.psql("shop", "SELECT number FROM cut.rows").split()}
        assert known <= stored, f"cut {cut}: lost {sorted(known - stored)}"
        assert machine.pi("dmesg --level err | grep EXT4-fs || true") == ""
    machine.pi(f"docker start {stopped}")
    wait_until_booted("", well)
    assert succeeded(converge())["changed"] == 0


# --- another machine --------------------------------------------------------------------------------------


def test_disk_that_has_outlived_its_machine_is_gone_on_with_and_not_rebuilt_over() -> None:
    """The board burnt: the same address, a fresh system, and the disk with all that was confirmed."""
    machine.pi("sync")
    (machine.STATE / "root.qcow2").unlink()
    machine.make("restart")
    wait_for("systemctl is-active ssh.service", BOOT_SECONDS)
    assert machine.pi("ls /etc/pi-commerce 2>&1 || true").strip().endswith("No such file or directory")
    done = machine.playbook("rebuild.yml", "-e", SERVICES, f"-estorage_disk={DISK}")
    assert done.status != 0
    for words in (f"{DISK} holds data already", "pi-commerce_postgres_data", "To go on with it: site.yml"):
        assert words in " ".join(done.output.split()), done.output[-3000:]
    succeeded(converge())
    assert kept()
    assert succeeded(converge())["changed"] == 0
