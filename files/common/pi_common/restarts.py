"""Restarts the machine, by one rule for whoever wants it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

from . import locks
from .commands import run
from .errors import Busy, PiError

# In which a machine that was told to restart is gone.
GONE_SECONDS = 600
DPKG = Path("/var/lib/dpkg/lock-frontend")


def restart(note: Callable[[], object]) -> None:
    """Restart the machine, holding everybody off until it is gone; `note` is called before. Whoever calls it is ended.

    Raises Busy where somebody moves data or installs packages, PiError where the machine stays.
    """
    with locks.held(locks.AT_WORK, Busy("a backup, a drill, a restore or an upgrade is at work")):
        if packages_at_work():
            raise Busy("packages are being installed")
        note()
        run("systemctl", "reboot", seconds=60)
        time.sleep(GONE_SECONDS)
    raise PiError(f"systemctl reboot was called {GONE_SECONDS} s ago, and the machine is still there")


def packages_at_work() -> bool:
    """Whether apt or dpkg is at it; their lock is of the kind that belongs to a process."""
    with DPKG.open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
