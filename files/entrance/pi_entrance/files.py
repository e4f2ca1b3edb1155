"""Files that are whole or not there, with their owner from the first moment."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, content: str, mode: int, owner: int = 0) -> None:
    """Replace a file in one step; when this returns it is on the disk."""
    temporary = path.with_name(f".new-{path.name}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as target:
        target.write(content)
        target.flush()
        os.fchown(target.fileno(), owner, owner)
        os.fchmod(target.fileno(), mode)
        os.fsync(target.fileno())
    os.rename(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> str:
    """Content of a file, empty where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""
