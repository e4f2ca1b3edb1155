"""A fan behind a controller on the I2C bus (Argon ONE), which takes a speed in percent and knows no temperature."""

from __future__ import annotations

import fcntl
import os

# From linux/i2c-dev.h: whom the following bytes are for.
I2C_SLAVE = 0x0703


def turn(bus: str, address: int, percent: int) -> None:
    """Set the speed. Raises OSError."""
    handle = os.open(bus, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, I2C_SLAVE, address)
        os.write(handle, bytes([percent]))
    finally:
        os.close(handle)
