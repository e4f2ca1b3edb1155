"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], seconds: float, what: str | Callable[[], str]) -> None:
    """Return once ``condition`` holds; fail after ``seconds`` in vain, naming ``what`` was awaited or is in the way."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)
