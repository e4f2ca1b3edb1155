"""What NUT tells of the battery, and what people have to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pi_common.alerts import Alert
from pi_common.commands import CommandFailed, run
from pi_common.metrics import Metric

SECONDS = 20
# So many looks in a row without an answer are none that was missed by chance.
BLIND_LOOKS = 2
# What the status is made of: on line, on battery, battery low, battery to be replaced, ordered to shut down.
FLAGS = ("OL", "OB", "LB", "RB", "FSD")

Told = Mapping[str, str]


def ask(ups: str) -> dict[str, str]:
    """Everything that it tells, by name; nothing where it does not answer, or only with what is out of date."""
    try:
        lines = run("upsc", ups, seconds=SECONDS).splitlines()
    except CommandFailed:
        return {}
    found = dict(line.split(": ", 1) for line in lines if ": " in line)
    return found if found.get("ups.status") else {}


def number(told: Told, name: str) -> float | None:
    """A figure; None where there is none."""
    try:
        return float(told[name])
    except (KeyError, ValueError):
        return None


def due(told: Told, blind: int) -> Iterator[Alert]:
    """What people have to know now."""
    flags = told.get("ups.status", "").split()
    figures = ", ".join(
        f"{what} {told[name]}{unit}"
        for name, what, unit in (("battery.charge", "charge", " %"), ("battery.runtime", "lasts", " s"))
        if name in told
    )
    if "OB" in flags:
        yield Alert(
            "power-battery",
            "warning",
            "The shop runs on battery",
            f"The mains are away{f' ({figures})' if figures else ''}. When it is low the shop is saved and shut down.",
            "The mains are back",
        )
    if {"OB", "LB"} <= set(flags):
        yield Alert("power-low", "critical", "The battery is low", "The shop is being saved and shut down now.")
    if "RB" in flags:
        yield Alert(
            "power-replace",
            "warning",
            "The UPS wants a new battery",
            "With this one the shop would end without a word when the mains go.",
        )
    if blind >= BLIND_LOOKS:
        yield Alert(
            "power-blind",
            "warning",
            "The UPS does not answer",
            "Nobody would notice that the mains are away. Is its cable in? On the Pi: systemctl status nut-server",
        )


def metrics(told: Told) -> list[Metric]:
    """How things stand, as Prometheus reads it."""
    flags = told.get("ups.status", "").split()
    return [
        Metric(
            "pi_power_ups_status",
            "Flags of the UPS, NaN: not known.",
            [({"flag": flag}, flag in flags if told else None) for flag in FLAGS],
        ),
        Metric("pi_power_battery_percent", "Charge, NaN: not known.", [({}, number(told, "battery.charge"))]),
        Metric("pi_power_battery_seconds", "How long it lasts, NaN: unknown.", [({}, number(told, "battery.runtime"))]),
    ]
