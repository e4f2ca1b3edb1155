"""What the board below a root folder tells about itself: power, heat, boot medium, USB disks, network sockets.

What cannot be read is None, never a healthy-looking value. Standard library alone, Python 3.9. Nothing here follows a
link out of the root, so recorded files can stand in for a board. The program that watches the board (`files/thermal`)
gets this very file.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import NamedTuple

SUPPLY = "use the board's own power supply (a Pi 4: 5.1 V, 3 A) and a short cable; an SSD may want one of its own"
COOLING = "see to its fan, heat sink and place: it slows down from 80 degrees Celsius on"


class Bit(NamedTuple):
    """One of get_throttled: which, in words, and what helps."""

    number: int
    words: str
    remedy: str

    @property
    def value(self) -> int:
        """The bit alone, for now; the same since the board was started is SINCE_START higher."""
        return 1 << self.number


BITS = {
    "under_voltage": Bit(0, "too little voltage", SUPPLY),
    "frequency_capped": Bit(1, "frequency capped", COOLING),
    "throttled": Bit(2, "throttled", COOLING),
    "soft_limit": Bit(3, "at its soft temperature limit", COOLING),
}
UNDER_VOLTAGE = BITS["under_voltage"].value
SLOWED = sum(bit.value for bit in BITS.values()) - UNDER_VOLTAGE
# All of them: what makes a board unfit for load.
NOW = UNDER_VOLTAGE | SLOWED
SINCE_START = 16
# The firmware's own tool, where the system has it, and where the kernel tells the same: that has changed with kernels.
VCGENCMD = "usr/bin/vcgencmd"
TOOL_SECONDS = 5
THROTTLED = ("sys/devices/platform/*/*firmware*/get_throttled", "sys/devices/platform/*firmware*/get_throttled")
TEMPERATURE = "sys/class/thermal/thermal_zone0/temp"
# A sensor that says less or more is broken.
PLAUSIBLE = (-40.0, 125.0)
# USB's class of disks, in hexadecimal.
MASS_STORAGE = "08"
ETHERNET = "1"


def read(root: str) -> dict:
    """Everything, by name: what each function of this module returns."""
    return {
        "revision": revision(root),
        "ram_mib": ram_mib(revision(root)),
        "eeprom_epoch": eeprom_epoch(root),
        "throttled": throttled(root),
        "under_voltage": under_voltage(root),
        "celsius": celsius(root),
        "boot": boot(root),
        "bridges": bridges(root),
        "sockets": sockets(root),
    }


def text(root: str, path: str) -> str | None:
    """Content of a file without what ends it: a line's end, or the NUL of the device tree."""
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as source:
            return source.read().rstrip("\0\n ")
    except OSError:
        return None


def number(root: str, path: str) -> int | None:
    """A file that holds one decimal number."""
    found = text(root, path)
    return int(found) if found and re.fullmatch(r"-?\d+", found) else None


def cell(root: str, path: str) -> int | None:
    """A property of the device tree that is one 32-bit number."""
    try:
        with open(os.path.join(root, "proc/device-tree", path), "rb") as source:
            content = source.read()
    except OSError:
        return None
    return int.from_bytes(content, "big") if len(content) == 4 else None


def setting(root: str, path: str, name: str) -> str | None:
    """One value of a file of NAME=value lines, such as the kernel's uevent."""
    found = re.search(rf"^{name}=(.+)$", text(root, path) or "", flags=re.MULTILINE)
    return found[1] if found else None


def named(root: str, pattern: str) -> list:
    """Paths relative to the root that match, sorted."""
    return sorted(os.path.relpath(path, root) for path in glob.glob(os.path.join(root, pattern)))


# --- what it is -------------------------------------------------------------------------------------------


def revision(root: str) -> str | None:
    """The revision code, such as c03115: from the device tree, else from /proc/cpuinfo."""
    code = cell(root, "system/linux,revision")
    if code is not None:
        return f"{code:x}"
    found = re.search(r"^Revision\s*: ([0-9a-f]+)$", text(root, "proc/cpuinfo") or "", flags=re.MULTILINE)
    return found[1] if found else None


def ram_mib(code: str | None) -> int | None:
    """Memory that was soldered on, by the revision code; the oldest boards' codes do not tell."""
    value = int(code or "0", 16)
    return 256 << (value >> 20 & 7) if value >> 23 & 1 else None


def eeprom_epoch(root: str) -> int | None:
    """When the boot program in the EEPROM was built, seconds since 1970."""
    return cell(root, "chosen/bootloader/build-timestamp")


# --- power and heat ---------------------------------------------------------------------------------------


def throttled(root: str) -> int | None:
    """The bits of get_throttled.

    The firmware's tool is asked first: the kernel's file is going away, and the first to read it has a warning with a
    stack trace put into the log.
    """
    bits = throttled_bits(ask_firmware(root, "get_throttled"))
    told = (text(root, path) or "" for pattern in THROTTLED for path in named(root, pattern))
    return bits if bits is not None else next((bits for bits in map(throttled_bits, told) if bits is not None), None)


def throttled_bits(told: str) -> int | None:
    """The figure in what the firmware's tool or the kernel says."""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]+)", told.strip())
    return int(found[1], 16) if found else None


def slowed_down(bits: int | None) -> bool:
    """Whether it has too little voltage or is slowed down at this moment."""
    return bool((bits or 0) & NOW)


def ask_firmware(root: str, question: str) -> str:
    """What vcgencmd answers; nothing where it is not there, or where there is no firmware behind it."""
    try:
        done = subprocess.run(
            [os.path.join(root, VCGENCMD), question],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TOOL_SECONDS,
            check=False,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def under_voltage(root: str) -> bool | None:
    """Whether the kernel's own watch of the voltage (hwmon) has just seen too little."""
    for path in named(root, "sys/class/hwmon/*/name"):
        if text(root, path) == "rpi_volt":
            alarm = number(root, os.path.join(os.path.dirname(path), "in0_lcrit_alarm"))
            return None if alarm is None else alarm != 0
    return None


def celsius(root: str) -> float | None:
    """Temperature of the processor."""
    return degrees(text(root, TEMPERATURE) or "")


def degrees(told: str) -> float | None:
    """Degrees Celsius in what the kernel says, in thousandths; None for what no sensor can mean."""
    found = int(told) / 1000 if re.fullmatch(r"-?\d+", told.strip()) else None
    return found if found is not None and PLAUSIBLE[0] <= found <= PLAUSIBLE[1] else None


def megahertz(root: str) -> tuple:
    """How fast the processor runs, and how fast it may: each a number or None."""
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    # The first is measured, the second is what the kernel has asked for.
    running = [number(root, f"{folder}/{name}") for name in ("cpuinfo_cur_freq", "scaling_cur_freq")]
    found = [next((value for value in running if value is not None), None), number(root, f"{folder}/cpuinfo_max_freq")]
    return tuple(None if value is None else value // 1000 for value in found)


# --- disks ------------------------------------------------------------------------------------------------


def boot(root: str) -> dict:
    """What the system runs from: `disk`, its `medium` (SD, eMMC, USB, NVMe, SATA, virtual), by USB its `speed_mbit`."""
    disk = system_disk(root)
    device = usb_device(root, disk)
    speed = number(root, f"sys/bus/usb/devices/{device}/speed") if device else None
    return {"disk": disk, "medium": medium(root, disk), "speed_mbit": speed}


def system_disk(root: str) -> str | None:
    """The disk below the root file system, such as sda; the first one below a volume of several."""
    numbers = re.findall(r"^\d+ \d+ (\d+:\d+) \S+ / ", text(root, "proc/1/mountinfo") or "", flags=re.MULTILINE)
    name = setting(root, f"sys/dev/block/{numbers[-1]}/uevent", "DEVNAME") if numbers else None
    for _ in range(8):
        below = named(root, f"sys/block/{name}/slaves/*")
        if not name or not below:
            break
        name = os.path.basename(below[0])
    whole = named(root, f"sys/block/*/{name}")
    return os.path.basename(os.path.dirname(whole[0])) if name and whole else name


def medium(root: str, disk: str | None) -> str | None:
    """What kind of disk that is."""
    if not disk:
        return None
    if usb_device(root, disk):
        return "USB"
    for path in named(root, f"sys/bus/mmc/devices/*/block/{disk}"):
        kind = text(root, os.path.join(path, "../../type"))
        return {"SD": "SD", "MMC": "eMMC"}.get(kind or "")
    kinds = {"nvme": "NVMe", "sd": "SATA", "vd": "virtual"}
    return next((kind for begin, kind in kinds.items() if disk.startswith(begin)), None)


def usb_device(root: str, disk: str | None) -> str | None:
    """The device of the USB, such as 2-1, behind which a disk is."""
    found = named(root, f"sys/bus/usb/devices/*:*/host*/target*/*/block/{disk}")
    return found[0].split("/")[4].partition(":")[0] if disk and found else None


def bridges(root: str) -> list | None:
    """What disks hang on by USB: `id` (vendor:product), `name`, `driver` and `speed_mbit` of each."""
    if not os.path.isdir(os.path.join(root, "sys/bus/usb/devices")):
        return None
    found = []
    for path in named(root, "sys/bus/usb/devices/*:*/bInterfaceClass"):
        interface = os.path.dirname(path)
        device = interface.partition(":")[0]
        if text(root, path) == MASS_STORAGE:
            known = {name: text(root, f"{device}/{name}") for name in ("idVendor", "idProduct", "product")}
            found.append(
                {
                    "id": f"{known['idVendor']}:{known['idProduct']}",
                    "name": known["product"] or "",
                    "driver": setting(root, f"{interface}/uevent", "DRIVER"),
                    "speed_mbit": number(root, f"{device}/speed"),
                }
            )
    return found


# --- network ----------------------------------------------------------------------------------------------


def sockets(root: str) -> list | None:
    """The machine's network sockets: `name`, `wireless`, `carrier`, `speed_mbit`, and whether the way out is by it."""
    if not os.path.isdir(os.path.join(root, "sys/class/net")):
        return None
    ways = ways_out(text(root, "proc/net/route") or "", text(root, "proc/net/ipv6_route") or "")
    found = []
    # What is made by software has no device.
    for path in named(root, "sys/class/net/*/device"):
        folder = os.path.dirname(path)
        name = os.path.basename(folder)
        if text(root, f"{folder}/type") == ETHERNET:
            speed = number(root, f"{folder}/speed")
            found.append(
                {
                    "name": name,
                    "wireless": bool(named(root, f"{folder}/phy80211") or named(root, f"{folder}/wireless")),
                    "carrier": number(root, f"{folder}/carrier") == 1,
                    # -1 where nobody has measured.
                    "speed_mbit": speed if speed and speed > 0 else None,
                    "way_out": name in ways,
                }
            )
    return found


def ways_out(route: str, ipv6_route: str) -> set:
    """Interfaces that a default route leads through, from /proc/net/route and /proc/net/ipv6_route."""
    rows = [line.split() for line in route.splitlines()[1:]]
    rows6 = [line.split() for line in ipv6_route.splitlines()]
    found = {row[0] for row in rows if row[1:2] == ["00000000"] and row[7:8] == ["00000000"]}
    # The kernel keeps one at lo that refuses.
    return found | {row[9] for row in rows6 if row[:2] == ["0" * 32, "00"] and row[9] != "lo"}
