"""Loads every core for a while and watches what the board does about it. Standard library alone, Python 3.9."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable

# Until the kernel has put the clock up.
GRACE_SECONDS = 10
PAUSE_SECONDS = 2


def soak(
    look: Callable,
    enough: Callable,
    seconds: float,
    grace: float = GRACE_SECONDS,
    pause: float = PAUSE_SECONDS,
) -> dict:
    """Load all cores for `seconds`, or until it is `enough`; what was seen meanwhile.

    Args:
        look: returns the bits of get_throttled, degrees Celsius and MHz as they are now, each None where not readable.
        enough: whether such bits end it.
        seconds, grace, pause: how long; from when on the clock counts; between two looks.

    Returns `seconds` (that it lasted), `bits` (all that were ever set), `celsius` (the hottest), `mhz` (the slowest).
    """
    # Whatever else runs here has the cores first.
    os.nice(19)
    over = threading.Event()
    started = time.monotonic()
    seen: list = []
    for _ in range(os.cpu_count() or 4):
        threading.Thread(target=burn, args=(over,), daemon=True).start()
    try:
        while time.monotonic() - started < seconds and not (seen and enough(seen[-1][0])):
            time.sleep(pause)
            bits, heat, clock = look()
            seen.append((bits, heat, clock if time.monotonic() - started >= grace else None))
    finally:
        over.set()
    bits, heats, clocks = ([row[column] for row in seen if row[column] is not None] for column in range(3))
    ever = 0
    for value in bits:
        ever |= value
    return {
        "seconds": round(time.monotonic() - started),
        "bits": ever if bits else None,
        "celsius": max(heats, default=None),
        "mhz": min(clocks, default=None),
    }


def burn(over: threading.Event) -> None:
    """Keep one core busy; hashing this much at once leaves the others to other threads."""
    block = bytes(1 << 20)
    while not over.is_set():
        hashlib.sha256(block).digest()
