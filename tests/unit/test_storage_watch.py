"""The disk with the data is looked at, people are told once, and everything comes back when it does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from pi_common import alerts, commands, locks, restarts
from pi_common.errors import Busy, PiError
from pi_storage import __main__ as program
from pi_storage import places
from pi_storage.places import Place
from storage import layout
from storage import places as written

UUIDS = {"cache": "c-1", "logs": "l-1"}
LAYOUT = layout.rows(
    [
        {"name": "cache", "path": "/var/lib/docker", "binds": ["/var/lib/containerd"], "shares": {"cache": 1}},
        {"name": "logs", "path": "/var/log/journal", "shares": {"logs": 1}},
    ]
)
MOUNTINFO = """22 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 22 253:0 / /var/lib/docker rw,noatime - ext4 /dev/mapper/pi_commerce-cache rw,errors=remount-ro
31 22 253:1 / /var/log/journal rw,noatime - ext4 /dev/mapper/pi_commerce-logs ro,errors=remount-ro
"""


class World:
    """What was asked of the system, and what it answers."""

    def __init__(self) -> None:
        self.found: list[Place] = []
        self.after: list[Place] | None = None
        self.alive = True
        self.services: dict[str, str] = {}
        self.asked: list[str] = []

    def run(self, *command: str, text: str = "", seconds: float = 0) -> str:
        self.asked.append(" ".join(command))
        if command[:2] == ("systemctl", "show"):
            return self.services.get(command[-1], "")
        if command[0] == "systemd-escape":
            return command[-1].strip("/").replace("/", "-") + ".mount"
        if command[:2] == ("systemctl", "start") and self.after is not None:
            self.found = self.after
        return ""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    for module in (commands, alerts, restarts):
        monkeypatch.setattr(module, "run", found.run)
    monkeypatch.setattr(locks, "AT_WORK", tmp_path / "at-work.lock")
    monkeypatch.setattr(restarts, "DPKG", tmp_path / "dpkg")
    monkeypatch.setattr(restarts, "GONE_SECONDS", 0)
    monkeypatch.setattr(places, "read", lambda: found.found)
    monkeypatch.setattr(Place, "answers", lambda place: found.alive)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/local/sbin/{name}")
    return found


@pytest.fixture
def watch(tmp_path: Path) -> program.Watch:
    """One that has its disk."""
    (tmp_path / "disk").touch()
    return program.Watch(tmp_path / "disk", 6, tmp_path / "state")


CACHE = Place("/var/lib/docker", "/dev/disk/by-uuid/c-1", "/dev/mapper/pi_commerce-cache")
MISSING = Place("/var/lib/docker", "/dev/disk/by-uuid/c-1")
NEVER = "UnitFileState=enabled\nActiveState=inactive\nInactiveExitTimestampMonotonic=0"
STOPPED = "UnitFileState=enabled\nActiveState=inactive\nInactiveExitTimestampMonotonic=5"
DISABLED = "UnitFileState=disabled\nActiveState=inactive\nInactiveExitTimestampMonotonic=0"


def test_places_are_those_of_our_block_as_the_kernel_has_them(tmp_path: Path) -> None:
    block = [written.line(mount, LAYOUT, UUIDS) for mount in written.mounts(LAYOUT)]
    for name, text in (
        ("etc/fstab", written.fstab("UUID=x / ext4 rw 0 1\n", block)),
        ("proc/self/mountinfo", MOUNTINFO),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert places.read(tmp_path) == [
        CACHE,
        Place("/var/log/journal", "/dev/disk/by-uuid/l-1", "/dev/mapper/pi_commerce-logs", read_only=True),
        Place("/var/lib/containerd", ""),
    ]
    (tmp_path / "etc/fstab").write_text("UUID=x / ext4 rw 0 1\n")
    assert places.read(tmp_path) == []


def test_device_that_is_gone_does_not_answer_and_a_file_with_content_does(tmp_path: Path) -> None:
    there = Path(__file__)
    assert Place("/x", "", str(there)).answers()
    assert not Place("/x", "", str(tmp_path / "gone")).answers()


def test_disk_that_is_well_is_left_alone(world: World, watch: program.Watch) -> None:
    world.found = [CACHE]
    assert watch.look() == program.Found()
    watch.tell("")
    assert not [command for command in world.asked if "show" not in command]


def test_nothing_is_watched_where_nothing_is_declared(world: World, tmp_path: Path) -> None:
    assert program.Watch(tmp_path / "no-disk", 6, tmp_path).look() == program.Found()


def test_missing_disk_is_told_and_nothing_is_started(world: World, watch: program.Watch) -> None:
    watch.disk.unlink()
    world.found = [MISSING]
    problem, restart = watch.look()
    assert "is not there" in problem
    assert not restart
    watch.tell(problem)
    assert [command for command in world.asked if "systemctl start" in command] == []
    assert world.asked[-1].startswith("pi-commerce-notify --key storage --level critical ")
    asked = len(world.asked)
    watch.tell(problem)
    assert len(world.asked) == asked, "once"


def test_disk_that_comes_back_is_mounted_and_what_waited_is_started(world: World, watch: program.Watch) -> None:
    watch.tell("it was away")
    world.found, world.after = [MISSING], [CACHE]
    world.services = {"docker.service": NEVER, "containerd.service": NEVER, "docker.socket": DISABLED}
    assert watch.look() == program.Found()
    assert "systemctl start var-lib-docker.mount" in world.asked
    assert world.asked[-1] == "systemctl start containerd.service docker.service"
    watch.tell("")
    assert "pi-commerce-notify --key storage --clear" in world.asked
    world.asked.clear()
    watch.tell("")
    assert world.asked == []


def test_service_that_somebody_has_stopped_stays_down(world: World, watch: program.Watch) -> None:
    world.found, world.services = [CACHE], {"docker.service": STOPPED}
    assert watch.look() == program.Found()
    assert not [command for command in world.asked if "systemctl start" in command]


def test_volume_that_cannot_be_mounted_is_named(world: World, watch: program.Watch) -> None:
    world.found = [MISSING]
    assert "/var/lib/docker: cannot be mounted" in watch.look().problem


def test_read_only_volume_is_named(world: World, watch: program.Watch) -> None:
    world.found = [Place(CACHE.path, CACHE.wanted, CACHE.source, read_only=True)]
    assert "/var/lib/docker: read-only" in watch.look().problem


def pulled(world: World, watch: program.Watch) -> program.Found:
    """A look at a disk that was gone for a moment, and what follows."""
    world.found, world.alive = [CACHE], False
    found = watch.look()
    if found.restart:
        with pytest.raises(PiError, match="still there"):
            watch.restart()
    return found


def test_disk_that_was_pulled_restarts_the_machine_once_it_is_back(world: World, watch: program.Watch) -> None:
    watch.disk.unlink()
    assert "is not there" in pulled(world, watch).problem
    assert "systemctl reboot" not in world.asked
    watch.disk.touch()
    assert "is restarted" in pulled(world, watch).problem
    assert world.asked.count("systemctl reboot") == 1
    # It is pulled again at once: not more often than once in so many hours.
    assert "less than 6 hours ago" in pulled(world, watch).problem
    assert world.asked.count("systemctl reboot") == 1
    old = time.time() - 7 * 3600
    os.utime(watch.mark, (old, old))
    assert "is restarted" in pulled(world, watch).problem


def test_machine_is_not_restarted_under_somebody_who_is_at_work(
    world: World, watch: program.Watch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pi-commerce-updates does it: neither backup nor installation is cut off. It looks again in a minute."""
    with locks.held(locks.AT_WORK, Busy(), shared=True):
        watch.restart()
    monkeypatch.setattr(restarts, "packages_at_work", lambda: True)
    watch.restart()
    assert "systemctl reboot" not in world.asked
    assert not watch.mark.exists()
    assert "not yet: packages are being installed" in capsys.readouterr().err


def test_machine_is_never_restarted_where_that_is_not_wanted(world: World, watch: program.Watch) -> None:
    watch.reboot_hours = 0
    found = pulled(world, watch)
    assert "Restart the machine" in found.problem
    assert not found.restart
