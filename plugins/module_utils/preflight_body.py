"""Judges the board itself: power, heat, boot medium, USB disks, boot program, network socket. Pure, no host needed.

Only what may damage data at this moment refuses: too little voltage. What is slow or wears out warns, and so does what
cannot be read: unknown is not well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import board
import board_care
from board import COOLING, SUPPLY
from preflight import Facts, Finding

CONFIG, CMDLINE = "/boot/firmware/config.txt", "/boot/firmware/cmdline.txt"
TOOL = "install the firmware's tool (vcgencmd: package raspi-utils or libraspberrypi-bin)"
# Graphics and firmware take some of it.
LEAST_SHARE_OF_MEMORY = 0.8
EEPROM_YEARS = 3
YEAR = 365 * 86400
HOTTEST = 80
# Below this share of its clock it was slowed down; what is left are the kernel's own steps.
LEAST_SHARE_OF_CLOCK = 0.95
USB3_MBIT, GIGABIT = 5000, 1000
# USB-to-SATA bridges that reset or crawl with UAS on a Pi (vendor:product).
UAS_TROUBLE = ("152d:0562", "152d:0578", "152d:0579", "152d:0583", "152d:a583")


def judge(
    facts: Facts,
    controller_epoch: int,
    *,
    allow_low_voltage: bool = False,
    data_disk: str = "",
    watchdog_seconds: int = 0,
) -> Iterator[Finding]:
    """Judge what `pi_facts` returns of the board.

    Args:
        facts: the module's `facts`.
        controller_epoch: the controller's clock, seconds since 1970.
        allow_low_voltage: accept too little voltage at this moment.
        data_disk: the disk that the data is to lie on; empty for none of its own.
        watchdog_seconds: what the watchdog is to be set to; 0 for what suits the kernel.
    """
    body = facts["body"]
    yield _memory(facts["ram_mib"], body["ram_mib"])
    yield _boot(body["boot"], data_disk)
    yield _firmware(facts["config_txt"])
    yield _watchdog(watchdog_seconds, facts["kernel"])
    yield _power(body["throttled"], body["under_voltage"], allow_low_voltage)
    yield _throttling(body["throttled"], body["celsius"])
    yield from _bridges(body["bridges"])
    yield _eeprom(body["eeprom_epoch"], controller_epoch)
    yield _network(body["sockets"])


def judge_soak(soak: Mapping[str, Any]) -> Finding:
    """Judge what module `pi_soak` has seen."""
    check, bits, heat = "under load", soak["bits"], soak["celsius"]
    clock, nominal = soak["mhz"], soak["nominal_mhz"]
    degrees = "unknown temperature" if heat is None else f"{heat:.1f} degrees at most"
    speed = f"{clock or 'unknown'} of {nominal or 'unknown'} MHz at least"
    found = f"{soak['seconds']} s on all cores: {degrees}, {speed}"
    if bits is None and not (clock and nominal):
        return Finding("refuse", check, f"{found}; whether it was slowed down is unknown", TOOL)
    if (bits or 0) & board.NOW:
        remedy = SUPPLY if (bits or 0) & board.UNDER_VOLTAGE else COOLING
        return Finding("refuse", check, f"{found}; {_names(bits or 0)}", remedy)
    if clock and nominal and clock < LEAST_SHARE_OF_CLOCK * nominal:
        return Finding("refuse", check, f"{found}; it was slowed down", COOLING)
    if heat is not None and heat >= HOTTEST:
        return Finding("refuse", check, found, COOLING)
    return Finding("pass", check, found)


def _unknown(check: str, remedy: str) -> Finding:
    return Finding("warn", check, "unknown, it cannot be read", remedy)


def _names(bits: int) -> str:
    """What bits 0 to 3 say, in words."""
    return ", ".join(bit.words for bit in board.BITS.values() if bits & bit.value)


def _memory(used: int | None, soldered: int | None) -> Finding:
    check = "all memory"
    if used is None or soldered is None:
        return _unknown(check, "the revision code (/proc/cpuinfo) would tell how much the board has")
    found = f"the kernel has {used} MiB of the board's {soldered}"
    if used >= LEAST_SHARE_OF_MEMORY * soldered:
        return Finding("pass", check, found)
    return Finding("warn", check, found, f"take total_mem and gpu_mem out of {CONFIG} and reboot")


def _boot(boot: Mapping[str, Any], data_disk: str) -> Finding:
    check, medium, speed = "boot medium", boot["medium"], boot["speed_mbit"]
    if medium is None:
        return _unknown(check, "findmnt / and lsblk, on the Pi, say what it runs from")
    found = f"{medium}, {boot['disk']}" + (f", {speed} Mbit/s" if speed else "")
    if medium == "SD" and data_disk:
        return Finding("pass", check, f"{found}; the data is to lie on {data_disk}")
    if medium == "SD":
        remedy = "a card wears out, and is slow: write the system to an SSD and boot from it, or set storage_disk"
        return Finding("warn", check, found, remedy)
    if speed and speed < USB3_MBIT:
        return Finding("warn", check, found, "plug the disk into a blue socket (USB 3), or use another cable")
    return Finding("pass", check, found)


def _firmware(config_txt: Mapping[str, Any] | None) -> Finding:
    """Only a role that has to write there refuses."""
    check = "firmware settings"
    if config_txt is None:
        return _unknown(check, f"mount the boot partition, where {CONFIG} lies (mount /boot/firmware)")
    if config_txt["problem"]:
        return Finding("warn", check, config_txt["problem"], "until then no fan can be set up, and no kernel updated")
    return Finding("pass", check, config_txt["path"])


def _watchdog(seconds: int, kernel: str) -> Finding:
    check = "watchdog"
    if problem := board_care.watchdog_problem(seconds, kernel):
        return Finding("refuse", check, f"{seconds} s", problem)
    return Finding("pass", check, f"{seconds} s" if seconds else "none asked for, or what suits the kernel")


def _power(bits: int | None, alarm: bool | None, allow_low: bool) -> Finding:
    check = "power supply"
    if bits is None and alarm is None:
        return _unknown(check, f"{TOOL}; until then, watch for `Undervoltage` in dmesg")
    if (bits or 0) & board.UNDER_VOLTAGE or alarm:
        remedy = SUPPLY if allow_low else f"{SUPPLY}; preflight_allow_low_voltage: true runs that risk"
        found = "too little voltage right now: what is written may be lost"
        return Finding("warn" if allow_low else "refuse", check, found, remedy)
    if bits is None:
        return Finding("pass", check, "enough voltage right now; since it was started: unknown")
    if bits >> board.SINCE_START & board.UNDER_VOLTAGE:
        return Finding("warn", check, "too little voltage at some time since it was started", SUPPLY)
    return Finding("pass", check, "enough voltage since it was started")


def _throttling(bits: int | None, heat: float | None) -> Finding:
    check = "throttling"
    degrees = "unknown temperature" if heat is None else f"{heat:.1f} degrees"
    if bits is None:
        return Finding("warn", check, f"unknown, it cannot be read; {degrees}", TOOL)
    if bits & board.SLOWED:
        return Finding("warn", check, f"{_names(bits & board.SLOWED)} right now; {degrees}", COOLING)
    if before := bits >> board.SINCE_START & board.SLOWED:
        return Finding("warn", check, f"{_names(before)} at some time since it was started; {degrees}", COOLING)
    return Finding("pass", check, f"none since it was started; {degrees}")


def _bridges(bridges: list[Mapping[str, Any]] | None) -> Iterator[Finding]:
    check = "USB disk"
    if bridges is None:
        yield _unknown(check, "lsusb, on the Pi, lists them")
        return
    if not bridges:
        yield Finding("pass", check, "none")
    for bridge in bridges:
        found = f"{bridge['id']} {bridge['name']}".strip() + f", driver {bridge['driver'] or 'unknown'}"
        if bridge["id"] in UAS_TROUBLE and bridge["driver"] != "usb-storage":
            remedy = f'append "usb-storage.quirks={bridge["id"]}:u" to the one line of {CMDLINE} and reboot'
            yield Finding("warn", check, f"{found}: known to reset or crawl with it", remedy)
        else:
            yield Finding("pass", check, found)


def _eeprom(built: int | None, now: int) -> Finding:
    check = "boot program"
    if built is None:
        return _unknown(check, "sudo rpi-eeprom-update, on Raspberry Pi OS or Ubuntu, says how old the EEPROM's is")
    years = (now - built) / YEAR
    found = f"EEPROM of {years:.1f} years ago"
    if years <= EEPROM_YEARS:
        return Finding("pass", check, found)
    return Finding("warn", check, found, "sudo rpi-eeprom-update -a, then reboot")


def _network(sockets: list[Mapping[str, Any]] | None) -> Finding:
    check = "network socket"
    if sockets is None:
        return _unknown(check, "ip link, on the Pi, lists them")
    out = [socket for socket in sockets if socket["way_out"]]
    wired = [socket for socket in out or sockets if not socket["wireless"] and socket["carrier"]]
    if not wired:
        found = f"Wi-Fi, {out[0]['name']}" if out else "no cable is plugged in"
        return Finding("warn", check, found, "plug in a network cable: webhooks and copies should not hang on radio")
    best = max(wired, key=lambda socket: socket["speed_mbit"] or 0)
    speed = best["speed_mbit"]
    found = f"{best['name']}, {speed or 'unknown'} Mbit/s"
    if speed and speed < GIGABIT:
        return Finding("warn", check, found, "use a cable with four pairs (Cat 5e) and a gigabit switch")
    return Finding("pass", check, found)
