"""Starts of the machine under test: which one it is, and waiting for another one."""

from __future__ import annotations

import time
from collections.abc import Callable

import machine
import pytest

BOOT_SECONDS = 900  # an emulated machine on a busy computer


def boot_id() -> str:
    """What is new after each boot; empty while the machine does not answer."""
    return machine.pi("cat /proc/sys/kernel/random/boot_id", check=False).strip()


def wait_until_booted(old: str, back: Callable[[], bool]) -> None:
    """Wait for another boot than `old`, and until `back` says that the machine does what it is for."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        if boot_id() not in ("", old) and back():
            return
        time.sleep(2)
    pytest.fail(f"not back {BOOT_SECONDS} s after boot {old}: {machine.pi('docker ps --all', check=False)}")
