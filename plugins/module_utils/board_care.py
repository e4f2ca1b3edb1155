"""What the roles thermal and power decide without a Pi: fans, which services may be stopped, the watchdog. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import config_txt

# Pins of the header that can be given away; 0 and 1 belong to boards that are put on top.
PINS = range(2, 28)
# Four steps, as the kernel's overlay has; a Pi slows down at 80 degrees, until where each has to turn at its most.
STEPS = range(1, 5)
DEGREES = range(30, 76)
OVERLAY_STEPS = 4
FULL = 255


class Fan(NamedTuple):
    """How a fan is driven: by an overlay of the kernel, or at an address of the I2C bus. `pin` where that is fixed."""

    overlay: str = ""
    pin: int | None = None
    address: int = 0


FANS = {
    "none": Fan(),
    "gpio": Fan("gpio-fan"),
    "pwm": Fan("pwm-gpio-fan"),
    "ice_tower": Fan("gpio-fan", pin=14),
    "argon_one_m2": Fan(address=0x1A),
}
# Since this version the driver of the Pi's watchdog (bcm2835_wdt, 15 s at most) lets the kernel feed it in between.
LONG_WATCHDOG_KERNEL = (6, 8)
SHORT_WATCHDOG_SECONDS, LONG_WATCHDOG_SECONDS = 14, 60


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number; Ansible's are of a class of their own."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_curve(value: Any) -> bool:
    """Whether the fan's curve can be: one to four steps, each hotter and no slower than the last, full at the end."""
    if not isinstance(value, list) or len(value) not in STEPS:
        return False
    if not all(isinstance(step, Mapping) and set(step) == {"celsius", "percent"} for step in value):
        return False
    degrees, speeds = ([step[key] for step in value] for key in ("celsius", "percent"))
    if not all(map(_is_whole, [*degrees, *speeds])):
        return False
    rising = all(low < high for low, high in itertools.pairwise(degrees))
    not_slower = all(low <= high for low, high in itertools.pairwise(speeds))
    return (
        rising and not_slower and all(degree in DEGREES for degree in degrees) and speeds[0] > 0 and speeds[-1] == 100
    )


def is_heat(value: Any) -> bool:
    """Whether the limits can be: warm below high below critical, and what was stopped comes back well below that."""
    names = ("warm", "high", "critical", "restore")
    if not isinstance(value, Mapping) or set(value) != set(names):
        return False
    if not all(_is_whole(value[name]) and 30 <= value[name] <= 85 for name in names):
        return False
    return value["warm"] < value["high"] < value["critical"] and value["restore"] <= value["critical"] - 5


def fan_settings(name: str, pin: int, curve: Sequence[Mapping[str, int]]) -> list[str]:
    """What config.txt has to say for a fan; nothing for none."""
    fan = FANS[name]
    if fan.address:
        return ["dtparam=i2c_arm=on"]
    if not fan.overlay:
        return []
    pin = pin if fan.pin is None else fan.pin
    if fan.overlay == "gpio-fan":
        return [f"dtoverlay=gpio-fan,gpiopin={pin},temp={curve[0]['celsius'] * 1000}"]
    # Steps that are left over would keep the overlay's own figures, which may be lower than ours: the last is repeated.
    steps = [*curve, *[curve[-1]] * OVERLAY_STEPS][:OVERLAY_STEPS]
    lines = [f"dtoverlay=pwm-gpio-fan,fan_gpio={pin}"]
    for number, step in enumerate(steps):
        millidegrees = (step["celsius"] + max(number - len(curve) + 1, 0)) * 1000
        lines += [
            f"dtparam=fan_temp{number}={millidegrees}",
            f"dtparam=fan_temp{number}_speed={round(step['percent'] * FULL / 100)}",
        ]
    # Ends it: parameters that somebody adds below are for the board again.
    return [*lines, "dtoverlay="]


def fan_problem(name: str, pin: int, found: Mapping[str, Any] | None, settings: Sequence[str]) -> str:
    """Why a fan cannot be set up beside what config.txt says already (`config_txt.facts`); empty where it can."""
    wanted = config_txt.block(list(settings))
    if not wanted and not (found and found["block"]):
        return ""
    if found is None:
        return "there is no config.txt in /boot/firmware or /boot: mount the boot partition (mount /boot/firmware)"
    if wanted == found["block"]:
        return ""
    if found["problem"]:
        return str(found["problem"])
    fan = FANS[name]
    pin = pin if fan.pin is None else fan.pin
    where = found["path"]
    if fan.overlay and found["fan"]:
        return (
            f"{where} sets up a fan already, by hand ({found['fan'][0]}): take that line out, or set thermal_fan: none"
        )
    if fan.overlay and pin in config_txt.SERIAL_PINS and found["serial"]:
        return (
            f"{where} gives GPIO {pin} to the serial console ({found['serial'][0]}), and the fan would hang on "
            "that wire: take that line out, or put the fan on another pin (thermal_fan_pin)"
        )
    if fan.overlay and found["overlays"] is not None and fan.overlay not in found["overlays"]:
        return (
            f"{where.rpartition('/')[0]}/overlays: the firmware has no {fan.overlay} and would pass over it without a "
            "word; bring the system up to date (apt full-upgrade), or set thermal_fan: gpio"
        )
    return ""


def shed_problem(shed: Sequence[str], services: Iterable[Mapping[str, Any]]) -> str:
    """Why services cannot be stopped in this order; empty where they can. `services` have `name` and `needs`."""
    needs = {service["name"]: service["needs"] for service in services}
    for position, name in enumerate(shed):
        if name not in needs:
            return f"thermal_shed names {name}, which is not in services_enabled ({', '.join(needs)})"
        if name in shed[:position]:
            return f"thermal_shed names {name} twice"
        left = [user for user, needed in needs.items() if name in needed and user not in shed[:position]]
        if left:
            users = ", ".join(left)
            return f"thermal_shed stops {name}, which others need: name {users} before {name}, or leave {name} out"
    return ""


def stop_order(services: Sequence[Mapping[str, Any]], entrances: Iterable[str]) -> dict[str, list[str]]:
    """In which order all services stop when the power is about to go: `writers`, then the `stores`, the databases.

    `services` stand in the order in which they start and have `stores`, each with a `kind`. Whoever lets new work in
    (`entrances`) is the first.
    """
    first = set(entrances)
    reverse = [service["name"] for service in reversed(services)]
    stores = {
        service["name"]
        for service in services
        if any(store["kind"] in ("postgres", "redis") for store in service["stores"])
    }
    ordered = [name for name in reverse if name in first] + [name for name in reverse if name not in first]
    return {
        "writers": [name for name in ordered if name not in stores],
        "stores": [name for name in reverse if name in stores],
    }


def watchdog_seconds(kernel: str) -> int:
    """For how long a machine with this kernel may hang; 0 where nobody knows it."""
    known = _version(kernel)
    if known is None:
        return 0
    return SHORT_WATCHDOG_SECONDS if known < LONG_WATCHDOG_KERNEL else LONG_WATCHDOG_SECONDS


def watchdog_problem(seconds: int, kernel: str) -> str:
    """Why a watchdog cannot be set so; empty where it can. systemd would go on without one, and say so nowhere."""
    known = _version(kernel)
    if known is not None and known < LONG_WATCHDOG_KERNEL and seconds > SHORT_WATCHDOG_SECONDS:
        return (
            f"power_watchdog_seconds is {seconds}; before Linux 6.8 (this is {kernel}) the Pi's watchdog takes at most "
            f"15 s, and there would be none: set {SHORT_WATCHDOG_SECONDS} or less"
        )
    return ""


def _version(kernel: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", str(kernel))
    return (int(found[1]), int(found[2])) if found else None
