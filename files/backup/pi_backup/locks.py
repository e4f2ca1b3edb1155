"""Who may do what at the same time. The kernel takes a lock back when its holder dies, however it dies.

- `nightly`: a run of it; `ship`: the part of a run that stages; `restore` needs both, and all places
- `place-<name>`: a repository that a ship is feeding. Held by that alone, so that a slow one delays no other
- `make-<name>`: a repository while it is made
- `slot-<number>`: a staging folder in use
- `save-<volume>`: Redis while it writes a dump for somebody
- `state`: a moment, to change a state file
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
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


@contextmanager
def all_locked(folder: Path, jobs: Iterable[str], seconds: float = 0) -> Iterator[None]:
    """Hold several locks, taken in the order given. Raises Busy, holding none."""
    with ExitStack() as held:
        for job in jobs:
            held.enter_context(locked(folder, job, seconds))
        yield


@contextmanager
def any_locked(folder: Path, jobs: Iterable[str]) -> Iterator[str]:
    """Hold the first of several locks that is free; its name. Raises Busy where none is."""
    with ExitStack() as held:
        for job in jobs:
            try:
                held.enter_context(locked(folder, job))
            except Busy:
                continue
            yield job
            return
        raise Busy("earlier runs are still at work")
