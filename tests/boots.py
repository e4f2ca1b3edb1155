"""Starts of the machine under test: which one it is, and waiting for another one."""

from __future__ import annotations

from collections.abc import Callable

import machine
from waiting import wait_until

BOOT_SECONDS = 900  # an emulated machine on a busy computer


def boot_id() -> str:
    """What is new after each boot; empty while the machine does not answer."""
    return machine.pi("cat /proc/sys/kernel/random/boot_id", check=False).strip()


def wait_until_booted(old: str, back: Callable[[], bool]) -> None:
    """Wait for another boot than `old`, and until `back` says that the machine does what it is for."""
    wait_until(lambda: boot_id() not in ("", old) and back(), BOOT_SECONDS, machine.unwell)
