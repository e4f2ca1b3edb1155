"""What the kernel and the firmware tell of the board. What cannot be read is None, never a healthy-looking figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Bits of get_throttled: now; the same 16 bits higher: since the board was started.
BITS = {"under_voltage": 0, "frequency_capped": 1, "throttled": 2, "soft_limit": 3}
SINCE_START = 16
# The path has changed with kernels.
THROTTLED = (
    "sys/devices/platform/soc/soc:firmware/get_throttled",
    "sys/devices/platform/*/*firmware*/get_throttled",
    "sys/devices/platform/*firmware*/get_throttled",
)
VOLTAGE_SENSOR = "rpi_volt"
# A sensor that says less or more is broken.
PLAUSIBLE = (-40.0, 125.0)

Bits = Mapping[str, "bool | None"]
UNKNOWN: Bits = dict.fromkeys(BITS)


@dataclass(frozen=True)
class Reading:
    """Degrees Celsius, and the bits now and since the board was started; None for what is not known."""

    celsius: float | None
    now: Bits
    past: Bits


def read(root: Path) -> Reading:
    """Everything, below the hardware's root."""
    return Reading(_celsius(root), *_bits(root))


def _celsius(root: Path) -> float | None:
    """The processor's temperature, which the kernel tells in thousandths."""
    text = _text(root / "sys/class/thermal/thermal_zone0/temp")
    try:
        celsius = int(text) / 1000
    except ValueError:
        return None
    return celsius if PLAUSIBLE[0] <= celsius <= PLAUSIBLE[1] else None


def _bits(root: Path) -> tuple[Bits, Bits]:
    """From the firmware's own figure; where that is not to be had from the voltage sensor, which knows of one bit."""
    for path in (path for pattern in THROTTLED for path in sorted(root.glob(pattern))):
        try:
            # With or without 0x.
            value = int(_text(path), 16)
        except ValueError:
            continue
        return (
            {name: bool(value & 1 << bit) for name, bit in BITS.items()},
            {name: bool(value & 1 << bit + SINCE_START) for name, bit in BITS.items()},
        )
    for sensor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        alarm = _text(sensor / "in0_lcrit_alarm")
        if _text(sensor / "name") == VOLTAGE_SENSOR and alarm in ("0", "1"):
            return {**UNKNOWN, "under_voltage": alarm == "1"}, UNKNOWN
    return UNKNOWN, UNKNOWN


def boot_id(root: Path = Path("/")) -> str:
    """Changes each time the kernel starts."""
    return _text(root / "proc/sys/kernel/random/boot_id")


def _text(path: Path) -> str:
    """Content of a file; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
