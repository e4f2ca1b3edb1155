"""Who may do what at the same time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from pi_common.locks import held

from .errors import Busy


def locked(folder: Path, name: str, seconds: float = 0) -> AbstractContextManager[None]:
    """Hold a lock, waiting for it at most `seconds`. Raises Busy."""
    return held(folder / f".{name}.lock", Busy(f"{folder}: another process holds its lock {name}"), seconds)
