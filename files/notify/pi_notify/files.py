"""Files that are whole or not there, also after a power cut, and a lock that the kernel takes back."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import Busy

# How files begin that are being written.
TEMPORARY = ".new-"


def write(path: Path, content: str, mode: int = 0o600) -> None:
    """Replace a file in one step; when this returns it is on the disk. For one writer of the file at a time.

    Raises OSError that names the file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as target:
            os.fchmod(target.fileno(), mode)
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        os.rename(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step."""
    write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, name: str, seconds: float = 0) -> Iterator[None]:
    """Hold a lock, waiting for it at most `seconds`. Raises Busy."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise Busy(f"{folder}: another process holds its lock {name}") from error
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)
