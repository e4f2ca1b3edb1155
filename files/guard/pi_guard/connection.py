"""The connection by which this process came in, and whether it is younger than a moment."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .errors import Refused

TICKS = os.sysconf("SC_CLK_TCK")


def now() -> float:
    """Seconds since the kernel started, whatever becomes of the clock on the wall."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def prove_newer(armed_at: float, proc: Path = Path("/proc"), pid: int = 0) -> None:
    """Raise Refused unless an SSH connection that was made after `armed_at` has started this process.

    One that was open already would go on through a firewall or a server that lets nobody in any more.
    """
    pid = pid or os.getpid()
    while pid > 1:
        name, parent, started = _process(proc, pid)
        if name.startswith("sshd"):
            if started <= armed_at:
                raise Refused(
                    "this connection is older than the change, it proves nothing: open a new one and ask again"
                )
            return
        pid = parent
    raise Refused("this did not come by SSH, it proves nothing: log in by SSH anew and ask again")


def client(proc: Path = Path("/proc"), pid: int = 0) -> str:
    """The address from which this process was started by SSH; empty where it was not, or where nobody can tell."""
    pid = pid or os.getpid()
    while pid > 1:
        try:
            # sudo does not pass it on, but some process on the way here has it.
            entries = (proc / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
            _, parent, _ = _process(proc, pid)
        except OSError:
            return ""
        for entry in entries:
            if entry.startswith("SSH_CONNECTION="):
                return entry.partition("=")[2].split()[0]
        pid = parent
    return ""


def _process(proc: Path, pid: int) -> tuple[str, int, float]:
    """Name, parent, and seconds since the kernel's start at which a process was started."""
    text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    # The name, in brackets, may hold anything.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return name, int(fields[1]), int(fields[19]) / TICKS
