"""What the board tells at a look. What cannot be read is None, never a healthy-looking figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import board

Bits = Mapping[str, "bool | None"]
UNKNOWN: Bits = dict.fromkeys(board.BITS)


@dataclass(frozen=True)
class Reading:
    """Degrees Celsius, and the bits now and since the board was started; None for what is not known."""

    celsius: float | None
    now: Bits
    past: Bits


def read(root: str) -> Reading:
    """Everything, below the hardware's root."""
    celsius, bits = board.celsius(root), board.throttled(root)
    if bits is None:
        # The kernel's own watch of the voltage knows of one bit, and of this moment alone.
        return Reading(celsius, {**UNKNOWN, "under_voltage": board.under_voltage(root)}, UNKNOWN)
    return Reading(celsius, _named(bits), _named(bits >> board.SINCE_START))


def _named(bits: int) -> Bits:
    return {name: bool(bits & bit.value) for name, bit in board.BITS.items()}


def boot_id() -> str:
    """Changes each time the kernel starts."""
    return board.text("/", "proc/sys/kernel/random/boot_id") or ""
