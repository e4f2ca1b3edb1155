"""Files that are whole or not there, also after a power cut, and a lock."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pi_locks import held

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


def locked(folder: Path, name: str, seconds: float = 0) -> AbstractContextManager[None]:
    """Hold a lock, waiting for it at most `seconds`. Raises Busy."""
    return held(folder / f".{name}.lock", Busy(f"{folder}: another process holds its lock {name}"), seconds)
