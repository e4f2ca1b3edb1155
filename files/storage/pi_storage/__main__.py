"""`pi-commerce-storage`: looks whether the disk with the data is there, tells people, and has it back when it returns.

A timer starts it every minute. Exit codes: 0 all is well, 1 something is wrong (it says what).
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import NamedTuple

from pi_common import alerts, commands, files, programs, restarts
from pi_common.alerts import Alert
from pi_common.errors import Busy
from pi_common.programs import DONE, WRONG

from . import places
from .places import Place

SETTINGS = Path("/etc/pi-commerce/storage/settings.json")
# On the system's own disk.
FOLDER = Path("/var/lib/pi-commerce/storage")
SECONDS = 120
# What a machine without its disk has not started.
SERVICES = ("containerd.service", "docker.socket", "docker.service")
RUNS = ("active", "activating", "reloading")


def run(*command: str) -> str:
    """Output of a command, empty where it failed or took too long."""
    with contextlib.suppress(commands.CommandFailed):
        return commands.run(*command, seconds=SECONDS).strip()
    return ""


class Found(NamedTuple):
    """What is wrong, empty where nothing is or where it could be put right; and whether a restart would mend it."""

    problem: str = ""
    restart: bool = False


class Watch:
    """Looks at the disk, and what is remembered between them: what was wrong, and what people know."""

    def __init__(self, disk: Path, reboot_hours: float, folder: Path = FOLDER) -> None:
        """`disk` is a name below /dev/disk/by-id; in `reboot_hours` the machine is restarted once at most, 0: never."""
        self.disk, self.reboot_hours = disk, reboot_hours
        self.file, self.mark = folder / "state.json", folder / "rebooted"
        self.kept = {"problem": "", "told": {}, **files.read_json(self.file)}

    def look(self) -> Found:
        """Look once, and put right what can be."""
        found = places.read()
        if not found:
            return Found()
        lost = [place for place in found if place.mounted and not place.answers()]
        stuck = [place for place in found if place.mounted and place.read_only]
        missing = [place for place in found if not place.mounted]
        if lost and self.disk.exists():
            gone = f"{self.disk} was gone for a while, and what is mounted from it is lost to the kernel."
            obstacle = self._hindered()
            return Found(
                f"{gone} {obstacle or 'The machine is restarted, as soon as nobody else is at work on it.'}",
                not obstacle,
            )
        if lost or not self.disk.exists():
            return Found(
                f"{self.disk} is not there. Look at its cable and power. Nothing is written meanwhile: what is "
                "down stays down, and comes back by itself when the disk does."
            )
        if stuck:
            return Found(
                f"{_paths(stuck)}: read-only, as after an error of the disk. Look at dmesg; a restart of the machine "
                "checks the file system."
            )
        return self._bring_back(missing)

    def _bring_back(self, missing: list[Place]) -> Found:
        """Mount what is not mounted, and start what waits for it."""
        for place in missing:
            run("systemctl", "start", run("systemd-escape", "--path", "--suffix=mount", place.path))
        now = {place.path: place for place in places.read()} if missing else {}
        if left := [place for place in missing if not now[place.path].mounted]:
            return Found(
                f"{_paths(left)}: cannot be mounted, although {self.disk} is there. journalctl -b says "
                "why; a file system that is damaged is repaired by hand (e2fsck -f)."
            )
        if missing:
            run("journalctl", "--flush")
        waiting = [name for name in SERVICES if self._waits(name)]
        if waiting:
            run("systemctl", "start", *waiting)
        return Found()

    def _waits(self, service: str) -> bool:
        """Whether a service ought to run, and does not because it missed the disk: somebody may have stopped it."""
        shown = run(
            "systemctl", "show", "--property", "UnitFileState,ActiveState,InactiveExitTimestampMonotonic", service
        )
        told = dict(line.split("=", 1) for line in shown.splitlines())
        if told.get("UnitFileState") != "enabled" or told["ActiveState"] in RUNS:
            return False
        never = told["InactiveExitTimestampMonotonic"] == "0"
        return never or told["ActiveState"] == "failed" or bool(self.kept["problem"])

    def _hindered(self) -> str:
        """Why the machine is not to be restarted by itself, and what to do then; empty where it is."""
        by_hand = "Restart the machine: what is on the disk is checked and mounted then."
        if not self.reboot_hours:
            return by_hand
        if self.mark.exists() and 0 <= time.time() - self.mark.stat().st_mtime < self.reboot_hours * 3600:
            often = f"It was restarted for that less than {self.reboot_hours:g} hours ago: look at its cable and power."
            return f"{often} {by_hand}"
        return ""

    def tell(self, problem: str) -> None:
        """Tell people, once, and that it is over."""
        over = "The disk with the data is well again"
        due = [Alert("storage", "critical", "The disk with the data is in trouble", problem, over)] if problem else []
        now = {"problem": problem, "told": alerts.follow(self.kept["told"], due)}
        if now != self.kept:
            files.write_json(self.file, now)
            self.kept = now

    def restart(self) -> None:
        """Start the machine anew. At any hour and whoever is logged in: the shop is down."""
        try:
            restarts.restart(lambda: files.write(self.mark, ""))
        except Busy as busy:
            print(f"not yet: {busy}", file=sys.stderr)


def _paths(found: list[Place]) -> str:
    return ", ".join(place.path for place in found)


def watch() -> int:
    """Look once; the exit code."""
    settings = files.read_settings(SETTINGS, "storage")
    looking = Watch(Path(settings["disk"]), settings["reboot_hours"])
    found = looking.look()
    # Before a restart, so that it goes out now or after it.
    looking.tell(found.problem)
    if found.problem:
        print(found.problem, file=sys.stderr)
    if found.restart:
        looking.restart()
    return WRONG if found.problem else DONE


def main() -> int:
    """Entry point; the exit code."""
    return programs.ended(watch)


if __name__ == "__main__":
    sys.exit(main())
