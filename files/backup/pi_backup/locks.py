"""Who may do what at the same time.

- `nightly`: a run of it; `ship`: the part of a run that stages; `restore` needs both, and all places
- `place-<name>`: a repository that a ship is feeding. Held by that alone, so that a slow one delays no other
- `make-<name>`: a repository while it is made
- `slot-<number>`: a staging folder in use
- `save-<volume>`: Redis while it writes a dump for somebody
- `state`: a moment, to change a state file
- `at_work`: of the whole machine, shared by everything that moves data; whoever restarts it waits for that
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pi_common.locks
from pi_common.locks import held

from .errors import Busy


def locked(folder: Path, job: str, seconds: float = 0) -> AbstractContextManager[None]:
    """Hold the lock of `job`, waiting for it at most `seconds`. Raises Busy."""
    return held(folder / f".{job}.lock", Busy(f"another {job} is running"), seconds)


def at_work(seconds: float = 0) -> AbstractContextManager[None]:
    """Keep the machine as it is: nobody restarts it, or what runs on it, meanwhile. Raises Busy."""
    return held(
        pi_common.locks.AT_WORK, Busy("the machine, or what runs on it, is being updated"), seconds, shared=True
    )


@contextmanager
def all_locked(folder: Path, jobs: Iterable[str], seconds: float = 0) -> Iterator[None]:
    """Hold several locks, taken in the order given. Raises Busy, holding none."""
    with ExitStack() as all_held:
        for job in jobs:
            all_held.enter_context(locked(folder, job, seconds))
        yield


@contextmanager
def any_locked(folder: Path, jobs: Iterable[str]) -> Iterator[str]:
    """Hold the first of several locks that is free; its name. Raises Busy where none is."""
    with ExitStack() as all_held:
        for job in jobs:
            try:
                all_held.enter_context(locked(folder, job))
            except Busy:
                continue
            yield job
            return
        raise Busy("earlier runs are still at work")
