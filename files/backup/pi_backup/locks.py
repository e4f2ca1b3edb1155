"""One job at a time. The kernel takes a lock back when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import Busy


@contextmanager
def locked(folder: Path, job: str, seconds: float = 0) -> Iterator[None]:
    """Hold the lock of `job`, waiting for it at most `seconds`. Raises Busy."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / f".{job}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise Busy(f"another {job} is running") from error
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)
