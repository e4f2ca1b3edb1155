"""Judges the facts of a Pi: which findings refuse it, with the remedy for each. Pure, no host needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

# What the roles are written for and tested on. Raspberry Pi OS 64-bit calls itself debian.
SUPPORTED_OS = {
    "ubuntu": ("22.04", "24.04", "26.04"),
    "debian": ("12", "13"),
}
BOARDS = ("Raspberry Pi 4", "Raspberry Pi Compute Module 4", "Raspberry Pi 5", "Raspberry Pi Compute Module 5")
CLOCK_TOLERANCE_SECONDS = 300

Facts = Mapping[str, Any]


class Finding(NamedTuple):
    """One judged fact: `level` is pass, warn or refuse; `remedy` is empty where nothing is to be done."""

    level: str
    check: str
    found: str
    remedy: str = ""


def judge(
    facts: Facts,
    *,
    architectures: Iterable[str],
    allow_any_board: bool,
    ram_min_mib: int,
    disk_min_mib: int,
    controller_epoch: int,
) -> list[Finding]:
    """Judge all facts that `pi_facts` returns.

    Args:
        facts: the module's `facts`.
        architectures: machine names that are allowed, as `uname -m` prints them.
        allow_any_board: accept boards other than a Raspberry Pi 4 or 5.
        ram_min_mib, disk_min_mib: least memory and free disk space, in MiB.
        controller_epoch: the controller's clock, seconds since 1970.
    """
    checks: list[Callable[[], Finding]] = [
        lambda: _architecture(facts, list(architectures)),
        lambda: _operating_system(facts),
        lambda: _board(facts, allow_any_board),
        lambda: _at_least(
            "memory", facts["ram_mib"], ram_min_mib, "use a Pi with 4 GB or more (preflight_ram_min_mib)"
        ),
        lambda: _at_least(
            "free disk", facts["disk_free_mib"], disk_min_mib, "free some space (preflight_disk_min_mib)"
        ),
        lambda: _clock(facts, controller_epoch),
        lambda: _systemd(facts),
    ]
    return [check() for check in checks]


def _architecture(facts: Facts, allowed: list[str]) -> Finding:
    found = f"{facts['architecture']}, {facts['userland_bits']}-bit userland"
    if facts["architecture"] not in allowed:
        remedy = f"install a 64-bit ARM system, or allow it in preflight_architectures (now {', '.join(allowed)})"
        return Finding("refuse", "architecture", found, remedy)
    if facts["userland_bits"] != 64:
        return Finding(
            "refuse", "architecture", found, "the kernel is 64-bit but the system is not: install the 64-bit image"
        )
    return Finding("pass", "architecture", found)


def _operating_system(facts: Facts) -> Finding:
    found = str(facts["os_name"] or "unknown")
    if facts["os_version"] in SUPPORTED_OS.get(str(facts["os_id"]), ()):
        return Finding("pass", "operating system", found)
    supported = "; ".join(f"{name} {', '.join(versions)}" for name, versions in SUPPORTED_OS.items())
    return Finding("refuse", "operating system", found, f"install one of: {supported}")


def _board(facts: Facts, allow_any: bool) -> Finding:
    found = str(facts["board"] or "no device-tree model")
    if found.startswith(BOARDS):
        return Finding("pass", "board", found)
    remedy = "use a Raspberry Pi 4 or 5, or set preflight_allow_any_board: true"
    return Finding("warn" if allow_any else "refuse", "board", found, remedy)


def _at_least(check: str, found: int | None, least: int, remedy: str) -> Finding:
    if found is None:
        return Finding(
            "refuse", check, "cannot be read", "look at hardware_root: it must hold the board's proc and sys"
        )
    text = f"{found} MiB, at least {least} MiB"
    return Finding("pass", check, text) if found >= least else Finding("refuse", check, text, remedy)


def _clock(facts: Facts, controller_epoch: int) -> Finding:
    off = int(facts["epoch_seconds"]) - controller_epoch
    if abs(off) <= CLOCK_TOLERANCE_SECONDS:
        return Finding("pass", "clock", "agrees with the controller's")
    remedy = "set it (timedatectl set-ntp true), or correct the controller's; certificates and signatures depend on it"
    return Finding("refuse", "clock", f"{abs(off)} s {'ahead of' if off > 0 else 'behind'} the controller's", remedy)


def _systemd(facts: Facts) -> Finding:
    if facts["systemd"]:
        return Finding("pass", "init", "systemd")
    return Finding("refuse", "init", "no systemd", "use an operating system that boots with systemd")


def render(findings: Iterable[Finding]) -> str:
    """The findings as a table for a terminal, refusals with their remedy on a line of their own."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<7} {finding.check:<17} {finding.found}")
        if finding.remedy:
            lines.append(f"{'':<7} {'':<17} -> {finding.remedy}")
    return "\n".join(lines)
