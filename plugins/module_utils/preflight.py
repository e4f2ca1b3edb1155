"""Judges the controller and the facts of a Pi: what refuses them, with the remedy. Pure, no host needed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

# What the roles are written for and tested on. Raspberry Pi OS 64-bit calls itself debian.
SUPPORTED_OS = {
    "ubuntu": ("22.04", "24.04", "26.04"),
    "debian": ("12", "13"),
}
BOARDS = ("Raspberry Pi 4", "Raspberry Pi Compute Module 4", "Raspberry Pi 5", "Raspberry Pi Compute Module 5")
CLOCK_TOLERANCE_SECONDS = 300
# What the plugins are written for; requirements.in installs it.
LEAST_ANSIBLE = (2, 19)
# Docker and its overlay file system are in order from here on; the oldest supported system has 5.15.
LEAST_KERNEL = (5, 10)
# Programs are built for these; a Pi 5 may run either.
PAGE_BYTES = (4096, 16384)
# What each edition is made for, in MiB: a "4 GB" board shows about 3790, an "8 GB" one about 7800.
EDITION_RAM_MIB = {"lean": 0, "appwrite": 7168}

# In what `endpoints.reach` says of a name that nobody knows.
RESOLVED = "cannot be resolved"

Facts = Mapping[str, Any]


class Finding(NamedTuple):
    """One judged fact: `level` is pass, warn or refuse; `remedy` is empty where nothing is to be done."""

    level: str
    check: str
    found: str
    remedy: str = ""


def judge_controller(ansible_version: str) -> Finding:
    """Judge the Ansible that runs on the controller."""
    if _numbers(ansible_version) >= LEAST_ANSIBLE:
        return Finding("pass", "controller", f"ansible-core {ansible_version}")
    least = ".".join(map(str, LEAST_ANSIBLE))
    remedy = f"use ansible-core {least} or newer: make setup, then source .venv/bin/activate"
    return Finding("refuse", "controller", f"ansible-core {ansible_version} is too old", remedy)


def judge(
    facts: Facts,
    *,
    architectures: Iterable[str],
    allow_any_board: bool,
    ram_min_mib: int,
    disk_min_mib: int,
    data_mount: str,
    edition: str,
    controller_epoch: int,
    allow_no_registry: bool = False,
) -> list[Finding]:
    """Judge all facts that `pi_facts` returns.

    Args:
        facts: the module's `facts`.
        architectures: machine names that are allowed, as `uname -m` prints them.
        allow_any_board: accept boards other than a Raspberry Pi 4 or 5.
        ram_min_mib, disk_min_mib: least memory and free disk space, in MiB.
        data_mount: folder that must be a mount point; empty for none.
        edition: edition of the machine.
        controller_epoch: the controller's clock, seconds since 1970.
        allow_no_registry: accept that an image registry does not answer.
    """
    checks: list[Callable[[], Finding]] = [
        lambda: _architecture(facts, list(architectures)),
        lambda: _operating_system(facts),
        lambda: _kernel(facts),
        lambda: _board(facts, allow_any_board),
        lambda: _at_least(
            "memory", facts["ram_mib"], ram_min_mib, "use a Pi with 4 GB or more (preflight_ram_min_mib)"
        ),
        lambda: _edition(facts, edition),
        lambda: _memory_cgroup(facts),
        lambda: _at_least(
            "free disk", facts["disk_free_mib"], disk_min_mib, "free some space (preflight_disk_min_mib)"
        ),
        lambda: _file_systems(facts),
        lambda: _data_mount(facts, data_mount),
        lambda: _clock(facts, controller_epoch),
        lambda: _clock_sync(facts),
        lambda: _systemd(facts),
        lambda: _name_server(facts),
    ]
    servers = [_server(row, allow_no_registry) for row in facts["servers"]]
    return [check() for check in checks] + servers + [*map(_port, facts["ports"])]


def _numbers(version: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    first, second = re.findall(r"\d+", version)[:2]
    return int(first), int(second)


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
        return Finding("pass", "board", f"{found}, revision {facts['body']['revision'] or 'unknown'}")
    remedy = "use a Raspberry Pi 4 or 5, or set preflight_allow_any_board: true"
    return Finding("warn" if allow_any else "refuse", "board", found, remedy)


def _at_least(check: str, found: int | None, least: int, remedy: str) -> Finding:
    if found is None:
        return Finding(
            "refuse", check, "cannot be read", "look at hardware_root: it must hold the board's proc and sys"
        )
    text = f"{found} MiB, at least {least} MiB"
    return Finding("pass", check, text) if found >= least else Finding("refuse", check, text, remedy)


def _kernel(facts: Facts) -> Finding:
    found = f"{facts['kernel']}, pages of {facts['page_bytes']} bytes"
    if _numbers(facts["kernel"]) < LEAST_KERNEL:
        least = ".".join(map(str, LEAST_KERNEL))
        return Finding("refuse", "kernel", found, f"update the system: Docker needs kernel {least} or newer")
    if facts["page_bytes"] not in PAGE_BYTES:
        remedy = "boot a kernel with pages of 4096 bytes (kernel=kernel8.img in config.txt)"
        return Finding("refuse", "kernel", found, remedy)
    return Finding("pass", "kernel", found)


def _edition(facts: Facts, edition: str) -> Finding:
    least = EDITION_RAM_MIB[edition]
    if facts["ram_mib"] is None or facts["ram_mib"] >= least:
        return Finding("pass", "edition", edition)
    found = f"{edition} needs {least} MiB, this board has {facts['ram_mib']} MiB"
    return Finding("refuse", "edition", found, "set edition: lean, or use a Pi with 8 GB")


def _memory_cgroup(facts: Facts) -> Finding:
    if facts["memory_cgroup"] is False:
        remedy = (
            'append "cgroup_enable=memory cgroup_memory=1" to the one line of /boot/firmware/cmdline.txt and reboot'
        )
        return Finding("refuse", "memory limits", "the memory cgroup is off: every limit would be ignored", remedy)
    return Finding("pass", "memory limits", "the memory cgroup is on" if facts["memory_cgroup"] else "not known yet")


def _file_systems(facts: Facts) -> Finding:
    if not facts["read_only"]:
        return Finding("pass", "file systems", "can be written")
    remedy = "look for disk errors (dmesg), check the file system, then mount it again: mount -o remount,rw"
    return Finding("refuse", "file systems", f"read-only: {', '.join(facts['read_only'])}", remedy)


def _data_mount(facts: Facts, path: str) -> Finding:
    if not path:
        return Finding("pass", "data disk", "none asked for (preflight_data_mount)")
    if facts["data_mounted"]:
        return Finding("pass", "data disk", f"mounted on {path}")
    remedy = "plug in the disk and mount it (lsblk, /etc/fstab), or correct preflight_data_mount"
    return Finding("refuse", "data disk", f"nothing is mounted on {path}", remedy)


def _server(row: Mapping[str, str], allow_no_registry: bool) -> Finding:
    if not row["problem"]:
        return Finding("pass", row["kind"], f"{row['address']} answers")
    remedy = (
        "correct the name servers of the Pi (/etc/resolv.conf), or the name"
        if RESOLVED in row["problem"]
        else "look at the Pi's network, its default route and firewalls on the way"
    )
    named = {"image registry": "images", "package mirror": "/etc/apt/sources.list.d"}[row["kind"]]
    level = "warn" if allow_no_registry and row["kind"] == "image registry" else "refuse"
    return Finding(level, row["kind"], f"{row['address']} {row['problem']}", f"{remedy}; it is named in {named}")


def _port(row: Mapping[str, str]) -> Finding:
    if not row["problem"]:
        return Finding("pass", "port", f"{row['address']} is free or ours")
    remedy = "stop that program, or choose another port or address (proxy_https_port, proxy_bind_address)"
    return Finding("refuse", "port", f"{row['address']} {row['problem']}", remedy)


def _clock(facts: Facts, controller_epoch: int) -> Finding:
    off = int(facts["epoch_seconds"]) - controller_epoch
    if abs(off) <= CLOCK_TOLERANCE_SECONDS:
        return Finding("pass", "clock", "agrees with the controller's")
    remedy = "set it (timedatectl set-ntp true), or correct the controller's; certificates and signatures depend on it"
    return Finding("refuse", "clock", f"{abs(off)} s {'ahead of' if off > 0 else 'behind'} the controller's", remedy)


def _clock_sync(facts: Facts) -> Finding:
    if facts["clock_synced"]:
        return Finding("pass", "clock sync", "somebody keeps it in step")
    found = "nobody keeps it in step" if facts["clock_synced"] is False else "unknown, the kernel does not say"
    remedy = "timedatectl set-ntp true, and let UDP port 123 out; the board has no clock that runs without power"
    return Finding("warn", "clock sync", found, remedy)


def _name_server(facts: Facts) -> Finding:
    asked = [row for row in facts["servers"] if not row["address"].replace(".", "").replace(":", "").isdigit()]
    failed = [row["address"] for row in asked if RESOLVED in row["problem"]]
    if failed:
        remedy = "correct the name servers of the Pi (/etc/resolv.conf)"
        return Finding("refuse", "name server", f"no answer for {', '.join(failed)}", remedy)
    return Finding("pass", "name server", f"{len(asked)} names resolved" if asked else "nothing had to be asked")


def _systemd(facts: Facts) -> Finding:
    if facts["systemd"]:
        return Finding("pass", "init", "systemd")
    return Finding("refuse", "init", "no systemd", "use an operating system that boots with systemd")


# What ssh or what ran behind it printed, what it means and what helps. The first that matches counts.
UNREACHABLE = (
    (
        r"Host key verification failed|IDENTIFICATION HAS CHANGED",
        "its SSH host key is not the known one",
        "compare it with ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the Pi itself; if it is right, "
        "take the old one out of known_hosts (ssh-keygen -R)",
    ),
    (
        r"Permission denied",
        "it does not let this user in with this key",
        "correct ansible_user and ansible_ssh_private_key_file, or add the key to authorized_keys on the Pi",
    ),
    (r"(?i)could not resolve|name or service not known", "its name cannot be resolved", "correct ansible_host"),
    (
        r"(?i)no route to host|timed out|refused|unreachable|closed by|reset by",
        "it does not answer SSH",
        "switch it on, look at its network, and correct ansible_host or ansible_port",
    ),
)
FAILED = (
    (
        r"(?i)missing sudo password|password is required|incorrect sudo|not in the sudoers|sudo: ",
        "the user may not become root",
        "let ansible_user use sudo without a password, or call ansible-playbook with --ask-become-pass",
    ),
    (
        r"(?i)python\S*: (\d+: )?(not found|no such file)|: not found|interpreter",
        "Python was not found",
        "install it on the Pi (apt install python3), or correct ansible_python_interpreter",
    ),
)


def judge_connection(reading: Mapping[str, Any], target: str) -> Finding:
    """Judge how the call of `pi_facts` ended, good or bad; `target` is the user and address it went to."""
    if "ansible_facts" in reading:
        return Finding("pass", "connection", target)
    told = " ".join(
        str(reading[key]) for key in ("msg", "module_stderr", "module_stdout", "exception") if key in reading
    )
    for pattern, found, remedy in UNREACHABLE if reading.get("unreachable") else FAILED:
        if re.search(pattern, told):
            return Finding("refuse", "connection", f"{target}: {found}", remedy)
    last = told.strip().splitlines()[-1:] or ["nothing was said"]
    return Finding("refuse", "connection", f"{target}: {last[0]}", "read the message above; -vvv shows more")


def judge_secrets(opened: Mapping[str, Any]) -> Finding:
    """Judge how opening the vault file ended."""
    if "secrets" in opened:
        return Finding("pass", "secrets", "the vault file opens")
    # The message ends with its remedy.
    return Finding("refuse", "secrets", str(opened["msg"]))


def judge_plan(plan: Mapping[str, Any]) -> Finding:
    """Judge whether the services fit into the memory, see `catalog.capacity_plan`."""
    if plan["fits"]:
        return Finding("pass", "services", f"{plan['services_mib']} MiB, {plan['spare_mib']} MiB to spare")
    remedy = (
        "take a service out of services_enabled, lower its limit in services_memory, or use a Pi with more memory:\n"
        + plan["table"]
    )
    return Finding("refuse", "services", f"do not fit, {-plan['spare_mib']} MiB are missing", remedy)


def totals(findings: Iterable[Finding]) -> str:
    """How many there are of each level, and what that means, in one line."""
    counts = Counter(finding.level for finding in findings)
    word = "not ready" if counts["refuse"] else "ready, look at the warnings" if counts["warn"] else "ready"
    return f"{word}: {counts['pass']} pass, {counts['warn']} warn, {counts['refuse']} refuse"


def render(findings: Iterable[Finding]) -> str:
    """The findings as a table for a terminal, what is to be done on a line of its own."""
    rows = list(findings)
    width = max((len(row.check) for row in rows), default=0)
    lines = []
    for row in rows:
        lines.append(f"{row.level:<7} {row.check:<{width}} {row.found}")
        if row.remedy:
            lines.append(f"{'':<7} {'':<{width}} -> {row.remedy}")
    return "\n".join(lines)
