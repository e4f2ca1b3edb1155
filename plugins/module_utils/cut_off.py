"""What a run that was cut off has left on the Pi: found by `pi_facts`, cleared up by `leftovers`. Python 3.9."""

from __future__ import annotations

import glob
import os
import pwd
import re

# Ansible puts it before every command that it runs as root.
MARK = b"BECOME-SUCCESS-"
# What dpkg did not finish. `triggers-*` belong to it: the package that waits is not configured.
UNFINISHED = re.compile(r"^Status: \S+ (reinstreq \S+|\S+ (half-|unpacked|triggers-)\S*)$", flags=re.MULTILINE)


def parent(pid: int) -> int:
    """Parent of a process; 0 when it has none or is gone."""
    try:
        with open(f"/proc/{pid}/stat") as source:
            return int(source.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def ancestors(pid: int) -> set:
    """The process itself and all above it."""
    found = set()
    while pid:
        found.add(pid)
        pid = parent(pid)
    return found


def command_line(pid: int) -> bytes:
    """Words of a process's command, each ended by NUL; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as source:
            return source.read()
    except OSError:
        return b""


def strangers() -> dict:
    """Commands of other runs that still work here, by process id."""
    own, found = ancestors(os.getpid()), {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        command = command_line(pid)
        if MARK in command and pid not in own:
            found[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def half_installed(status: str, journal: list) -> bool:
    """Whether dpkg was ended in the middle, from its status file and the names in its folder `updates`."""
    return any(name.isdigit() for name in journal) or UNFINISHED.search(status) is not None


def packages_are_half_installed() -> bool:
    """The same of this machine."""
    folder = "/var/lib/dpkg"
    try:
        with open(f"{folder}/status", encoding="utf-8", errors="replace") as source:
            return half_installed(source.read(), os.listdir(f"{folder}/updates"))
    except FileNotFoundError:
        return False


def unpacked_modules() -> list:
    """Folders into which modules that were killed had unpacked themselves, without this one's own."""
    login = os.environ.get("SUDO_USER", "root")
    homes = {pwd.getpwnam(name).pw_dir for name in ("root", login)}
    patterns = ["/tmp/ansible_*_payload_*", *(f"{home}/.ansible/tmp/ansible-tmp-*" for home in homes)]  # noqa: S108
    found = (path for pattern in patterns for path in glob.glob(pattern))
    # Without pipelining the module that asks lies in such a folder, and the shell that called it names it.
    own = " ".join([__file__, *(command_line(pid).decode(errors="replace") for pid in ancestors(os.getpid()))])
    return sorted(path for path in found if not os.path.islink(path) and os.path.basename(path) not in own)


def found() -> list:
    """All of it in words; empty after a run that ended by itself."""
    running = [f"process {pid}, which still works" for pid in strangers()]
    packages = ["packages that are half installed"] if packages_are_half_installed() else []
    return [*running, *packages, *unpacked_modules()]
