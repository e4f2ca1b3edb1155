"""What is read of a board, from recorded files; and that nothing is made up where they are missing."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import board
import plays
import pytest
import soak

RECORDED = plays.ROOT / "molecule/images/virtual-pi/hardware"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the recorded board, to be changed."""
    return Path(shutil.copytree(RECORDED / "pi4-4gb", tmp_path / "board"))


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def tool(root: Path, script: str) -> None:
    """The firmware's tool, as a script."""
    write(root, board.VCGENCMD, f"#!/bin/sh\n{script}\n")
    (root / board.VCGENCMD).chmod(0o755)


@pytest.mark.parametrize(("name", "code", "ram"), [("pi4-4gb", "c03115", 4096), ("pi4-8gb", "d03115", 8192)])
def test_recorded_boards_are_read_whole(name: str, code: str, ram: int) -> None:
    found = board.read(str(RECORDED / name))
    assert (found["revision"], found["ram_mib"]) == (code, ram)
    assert found["boot"] == {"disk": "sda", "medium": "USB", "speed_mbit": 5000}
    assert [bridge["driver"] for bridge in found["bridges"]] == ["uas"]
    assert {socket["name"]: socket["way_out"] for socket in found["sockets"]} == {"eth0": True, "wlan0": False}
    assert (found["throttled"], found["celsius"]) == (0, 48.199)
    assert board.megahertz(str(RECORDED / name)) == (1800, 1800)


def test_empty_root_is_unknown_throughout(tmp_path: Path) -> None:
    found = board.read(str(tmp_path))
    assert found.pop("boot") == {"disk": None, "medium": None, "speed_mbit": None}
    assert set(found.values()) == {None}
    assert board.megahertz(str(tmp_path)) == (None, None)


def test_device_tree_tells_the_revision_before_cpuinfo(root: Path) -> None:
    (root / "proc/device-tree/system/linux,revision").write_bytes(bytes.fromhex("00b03114"))
    assert board.revision(str(root)) == "b03114"
    assert board.ram_mib("b03114") == 2048
    (root / "proc/device-tree/system/linux,revision").unlink()
    assert board.revision(str(root)) == "c03115"
    # Codes of before 2014 say nothing of the kind.
    assert board.ram_mib("000e") is None


def test_damaged_property_is_unknown(root: Path) -> None:
    (root / "proc/device-tree/chosen/bootloader/build-timestamp").write_bytes(b"\x60")
    assert board.eeprom_epoch(str(root)) is None


@pytest.mark.parametrize(("content", "bits"), [("50005\n", 0x50005), ("0x8\n", 8), ("\n", None), ("no\n", None)])
def test_bits_are_hexadecimal_and_nothing_else(root: Path, content: str, bits: int | None) -> None:
    write(root, THROTTLED, content)
    assert board.throttled(str(root)) == bits


def test_bits_are_found_where_a_newer_board_has_them(root: Path) -> None:
    (root / THROTTLED).unlink()
    assert board.throttled(str(root)) is None
    write(root, "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "e0000\n")
    assert board.throttled(str(root)) == 0xE0000


@pytest.mark.parametrize(
    ("script", "bits"),
    [
        ("echo throttled=0x50000", 0x50000),
        # No firmware behind it: the kernel's file tells.
        ("echo VCHI initialization failed; exit 255", 0),
        ("echo error=1", 0),
    ],
)
def test_firmware_tool_is_asked_first(root: Path, script: str, bits: int) -> None:
    tool(root, script)
    assert board.throttled(str(root)) == bits


@pytest.mark.parametrize(("alarm", "found"), [("0\n", False), ("1\n", True), ("", None)])
def test_voltage_as_the_kernel_watches_it(root: Path, alarm: str, found: bool | None) -> None:
    write(root, "sys/class/hwmon/hwmon0/name", "cpu_thermal\n")
    write(root, "sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n")
    assert board.under_voltage(str(root)) is None
    write(root, "sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    write(root, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", alarm)
    assert board.under_voltage(str(root)) is found


def on(root: Path, disk: str, partition: str) -> None:
    """Let the system run from that partition."""
    write(root, "sys/dev/block/8:2/uevent", f"DEVNAME={partition}\nDEVTYPE=partition\n")
    write(root, f"sys/block/{disk}/{partition}/size", "1\n")


def test_card_and_soldered_memory_are_told_apart(root: Path) -> None:
    on(root, "mmcblk0", "mmcblk0p2")
    write(root, "sys/bus/mmc/devices/mmc0:aaaa/block/mmcblk0/size", "1\n")
    write(root, "sys/bus/mmc/devices/mmc0:aaaa/type", "SD\n")
    assert board.boot(str(root)) == {"disk": "mmcblk0", "medium": "SD", "speed_mbit": None}
    write(root, "sys/bus/mmc/devices/mmc0:aaaa/type", "MMC\n")
    assert board.boot(str(root))["medium"] == "eMMC"


@pytest.mark.parametrize(
    ("disk", "partition", "medium"),
    [("nvme0n1", "nvme0n1p2", "NVMe"), ("vda", "vda1", "virtual"), ("sdb", "sdb2", "SATA"), ("zram0", "zram0", None)],
)
def test_other_disks(root: Path, disk: str, partition: str, medium: str | None) -> None:
    on(root, disk, partition)
    assert board.boot(str(root))["medium"] == medium


def test_volume_is_followed_down_to_its_disk(root: Path) -> None:
    write(root, "proc/1/mountinfo", "30 1 254:0 / / rw - ext4 /dev/mapper/pi-root rw\n")
    write(root, "sys/dev/block/254:0/uevent", "DEVNAME=dm-0\n")
    write(root, "sys/block/dm-0/slaves/sda2/size", "1\n")
    assert board.boot(str(root)) == {"disk": "sda", "medium": "USB", "speed_mbit": 5000}


def test_root_that_is_no_disk_is_unknown(root: Path) -> None:
    write(root, "proc/1/mountinfo", "600 500 0:52 / / rw,relatime - overlay overlay rw\n")
    assert board.boot(str(root)) == {"disk": None, "medium": None, "speed_mbit": None}


def test_only_disks_are_bridges(root: Path) -> None:
    write(root, "sys/bus/usb/devices/1-1:1.0/bInterfaceClass", "09\n")
    assert [bridge["id"] for bridge in board.bridges(str(root)) or []] == ["174c:55aa"]
    shutil.rmtree(root / "sys/bus/usb/devices")
    (root / "sys/bus/usb/devices").mkdir()
    assert board.bridges(str(root)) == []


def test_network_sockets(root: Path) -> None:
    # A cable that is out: the kernel has no speed then, or -1.
    write(root, "sys/class/net/eth0/carrier", "0\n")
    write(root, "sys/class/net/eth0/speed", "-1\n")
    # Made by software.
    write(root, "sys/class/net/docker0/type", "1\n")
    found: dict[str, dict[str, Any]] = {one["name"]: one for one in board.sockets(str(root)) or []}
    assert set(found) == {"eth0", "wlan0"}
    assert (found["eth0"]["carrier"], found["eth0"]["speed_mbit"]) == (False, None)
    assert found["wlan0"]["wireless"]


def test_way_out_by_either_protocol() -> None:
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    home = "wg0\t00000000\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
    ipv6 = f"{'0' * 32} 00 {'0' * 32} 00 {'fe80'.ljust(32, '0')} 00000400 1 0 00000003 wlan0\n"
    none = f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 1 0 00200200 lo\n"
    assert board.ways_out(head + home, ipv6 + none) == {"wlan0"}
    assert board.ways_out("", "") == set()


# --- under load -------------------------------------------------------------------------------------------


def test_soak_lasts_and_tells_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.nice", lambda _: 0)
    looks = iter([(0x20000, 50.0, 1800), (0x40000, 66.5, 1500), (0, 60.0, 1800)])
    over, taken = threading.Event(), []

    def rival() -> None:
        """Takes what one core has to give just now, which is less where others are at work, too."""
        while not over.is_set():
            hashlib.sha256(bytes(1 << 20)).digest()
        taken.append(time.thread_time())

    beside = threading.Thread(target=rival)
    began = time.process_time()
    beside.start()
    try:
        seen = soak.soak(lambda: next(looks, (0, 60.0, 1800)), board.slowed_down, 0.6, grace=0, pause=0.2)
    finally:
        over.set()
        beside.join()
    assert time.process_time() - began - taken[0] > taken[0] / 3, "no core was busy"
    assert seen == {"seconds": 1, "bits": 0x60000, "celsius": 66.5, "mhz": 1500}


def test_soak_ends_where_the_board_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.nice", lambda _: 0)
    looks = iter([(0, 70.0, 1800), (0x4, 84.0, 600)])
    seen = soak.soak(lambda: next(looks), board.slowed_down, 60, grace=0, pause=0.05)
    assert (seen["bits"], seen["celsius"], seen["mhz"]) == (4, 84.0, 600)


def test_soak_of_a_board_that_tells_nothing_makes_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.nice", lambda _: 0)
    seen = soak.soak(lambda: (None, None, None), board.slowed_down, 0.1, grace=0, pause=0.05)
    assert (seen["bits"], seen["celsius"], seen["mhz"]) == (None, None, None)
