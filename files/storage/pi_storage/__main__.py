"""`pi-commerce-storage`: looks whether the disk with the data is there, tells people, and has it back when it returns.

A timer starts it every minute. Exit codes: 0 all is well, 1 something is wrong (it says what).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from . import places
from .places import Place

SETTINGS = Path("/etc/pi-commerce/storage/settings.json")
# On the system's own disk.
STATE = Path("/var/lib/pi-commerce/storage")
KEY = "storage"
SECONDS = 120
# What a machine without its disk has not started.
SERVICES = ("containerd.service", "docker.socket", "docker.service")
RUNS = ("active", "activating", "reloading")
ALARM = "alarm"


def run(*command: str, text: str = "") -> str:
    """Output of a command, empty where it failed or took too long."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


class Watch:
    """One look at the disk."""

    def __init__(self, disk: Path, reboot_hours: float, state: Path = STATE) -> None:
        """`disk` is a name below /dev/disk/by-id; in `reboot_hours` the machine is restarted once at most, 0: never."""
        self.disk, self.reboot_hours, self.state = disk, reboot_hours, state

    def look(self) -> str:
        """What is wrong, empty where nothing is or where it could be put right."""
        found = places.read()
        if not found:
            return ""
        lost = [place for place in found if place.mounted and not place.answers()]
        stuck = [place for place in found if place.mounted and place.read_only]
        missing = [place for place in found if not place.mounted]
        if lost and self.disk.exists():
            return (
                f"{self.disk} was gone for a while, and what is mounted from it is lost to the kernel. {self._reboot()}"
            )
        if lost or not self.disk.exists():
            return (
                f"{self.disk} is not there. Look at its cable and power. Nothing is written meanwhile: what is "
                "down stays down, and comes back by itself when the disk does."
            )
        if stuck:
            return (
                f"{_paths(stuck)}: read-only, as after an error of the disk. Look at dmesg; a restart of the machine "
                "checks the file system."
            )
        return self._bring_back(missing)

    def _bring_back(self, missing: list[Place]) -> str:
        """Mount what is not mounted, and start what waits for it."""
        for place in missing:
            run("systemctl", "start", run("systemd-escape", "--path", "--suffix=mount", place.path))
        now = {place.path: place for place in places.read()} if missing else {}
        if left := [place for place in missing if not now[place.path].mounted]:
            return (
                f"{_paths(left)}: cannot be mounted, although {self.disk} is there. journalctl -b says "
                "why; a file system that is damaged is repaired by hand (e2fsck -f)."
            )
        if missing:
            run("journalctl", "--flush")
        waiting = [name for name in SERVICES if self._waits(name)]
        if waiting:
            run("systemctl", "start", *waiting)
        return ""

    def _waits(self, service: str) -> bool:
        """Whether a service ought to run, and does not because it missed the disk: somebody may have stopped it."""
        shown = run(
            "systemctl", "show", "--property", "UnitFileState,ActiveState,InactiveExitTimestampMonotonic", service
        )
        told = dict(line.split("=", 1) for line in shown.splitlines())
        if told.get("UnitFileState") != "enabled" or told["ActiveState"] in RUNS:
            return False
        never = told["InactiveExitTimestampMonotonic"] == "0"
        return never or told["ActiveState"] == "failed" or (self.state / ALARM).exists()

    def _reboot(self) -> str:
        """Start the machine anew, unless that was done a short while ago; what was done, in words."""
        mark = self.state / "rebooted"
        by_hand = "Restart the machine: what is on the disk is checked and mounted then."
        if not self.reboot_hours:
            return by_hand
        if mark.exists() and 0 <= time.time() - mark.stat().st_mtime < self.reboot_hours * 3600:
            often = f"It was restarted for that less than {self.reboot_hours:g} hours ago: look at its cable and power."
            return f"{often} {by_hand}"
        self.state.mkdir(parents=True, exist_ok=True)
        mark.touch()
        run("systemctl", "reboot")
        return "It is there again, so the machine restarts now."

    def tell(self, problem: str) -> None:
        """Tell people, once, and that it is over."""
        alarm = self.state / ALARM
        if problem:
            print(problem, file=sys.stderr)
            self.state.mkdir(parents=True, exist_ok=True)
            alarm.write_text(problem, encoding="utf-8")
            notify("--level", "critical", "--key", KEY, "The disk with the data is in trouble", text=problem)
        elif alarm.exists():
            print("all is well again")
            notify("--clear", "--key", KEY)
            notify("The disk with the data is well again", text=f"It was: {alarm.read_text(encoding='utf-8')}")
            alarm.unlink()


def notify(*words: str, text: str = "") -> None:
    """Hand a message over, where there is somebody who takes it."""
    if shutil.which("pi-commerce-notify"):
        run("pi-commerce-notify", *words, text=text)


def _paths(found: list[Place]) -> str:
    return ", ".join(place.path for place in found)


def main() -> int:
    """Entry point; the exit code."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    watch = Watch(Path(settings["disk"]), settings["reboot_hours"])
    problem = watch.look()
    watch.tell(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
