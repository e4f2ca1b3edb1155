"""What the machine says of itself: whether it wants to be restarted, who is at work on it, and whether it is well."""

from __future__ import annotations

import glob
import re
import time
from pathlib import Path

from pi_common.commands import CommandFailed, run

ROOT = Path("/")
# One that was made for a connection; the server itself names its program instead.
SESSION = re.compile(r"sshd(-session)?: [^/\s]+")
STAMPS = "var/lib/apt/periodic/unattended-upgrades-stamp"


def reasons(root: Path = ROOT) -> list[str]:
    """Packages that ask for a restart."""
    if not (root / "run/reboot-required").exists():
        return []
    return sorted(set(_text(root / "run/reboot-required.pkgs").split())) or ["the system asks for it"]


def changed(root: Path = ROOT) -> float:
    """When a package was last installed or removed."""
    return (root / "var/lib/dpkg/status").stat().st_mtime


def outdated() -> list[str]:
    """Services that still run a library or program that was replaced.

    The kernel is not asked for: with the several kernels that a Raspberry Pi has side by side, needrestart sees a newer
    one for ever.
    """
    try:
        told = run("needrestart", "-b", "-l", "-r", "l", seconds=300)
    except CommandFailed:
        return []
    return sorted(set(re.findall(r"^NEEDRESTART-SVC: (\S+)$", told, flags=re.MULTILINE)))


def sessions(root: Path = ROOT) -> int:
    """How many connections people, or a run of site.yml, have open."""
    commands = (_text(Path(path)).split("\0", 1)[0] for path in glob.glob(str(root / "proc/[0-9]*/cmdline")))
    return sum(1 for command in commands if SESSION.match(command))


def uptime(root: Path = ROOT) -> float:
    """Seconds since the machine was started, whatever its clock says."""
    return float(_text(root / "proc/uptime").split()[0])


def updated(root: Path = ROOT) -> float:
    """When updates were last installed, or none were due; 0: never."""
    try:
        return (root / STAMPS).stat().st_mtime
    except OSError:
        return 0


def failed_units() -> list[str]:
    """Units that could not be started."""
    lines = run("systemctl", "list-units", "--failed", "--no-legend", "--plain", seconds=60).splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def in_window(begin: int, end: int, now: float) -> bool:
    """Whether it is the time of day, in local time, between two minutes of the day."""
    local = time.localtime(now)
    minute = local.tm_hour * 60 + local.tm_min
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
