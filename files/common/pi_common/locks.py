"""Locks that the kernel takes back when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Who moves data (a backup, a drill, a restore) shares it; who restarts the machine or what runs on it holds it alone.
AT_WORK = Path("/run/pi-commerce-at-work.lock")
PAUSE = 0.05


@contextmanager
def held(path: Path, busy: Exception, seconds: float = 0, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock, waiting for it at most `seconds`; `shared` with others who share it. Raises `busy`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise busy from error
                time.sleep(PAUSE)
        yield
    finally:
        os.close(handle)
