"""Fans, the order in which services stop, and the watchdog: decided without a Pi."""

from __future__ import annotations

from typing import Any

import board_care
import config_txt
import pytest

CURVE = [{"celsius": 55, "percent": 40}, {"celsius": 60, "percent": 70}, {"celsius": 64, "percent": 100}]
FACTS: dict[str, Any] = {
    "path": "/boot/firmware/config.txt",
    "problem": "",
    "block": [],
    "fan": [],
    "serial": [],
    "overlays": None,
}
SERVICES: list[dict[str, Any]] = [
    {"name": "postgres", "needs": [], "stores": [{"kind": "postgres"}]},
    {"name": "proxy", "needs": [], "stores": []},
    {"name": "redis", "needs": [], "stores": [{"kind": "redis"}]},
    {"name": "limiter", "needs": ["redis", "postgres"], "stores": []},
    {"name": "n8n", "needs": ["postgres", "limiter"], "stores": [{"kind": "n8n"}]},
]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("none", []),
        ("gpio", ["dtoverlay=gpio-fan,gpiopin=18,temp=55000"]),
        ("ice_tower", ["dtoverlay=gpio-fan,gpiopin=14,temp=55000"]),
        ("argon_one_m2", ["dtparam=i2c_arm=on"]),
        (
            "pwm",
            [
                "dtoverlay=pwm-gpio-fan,fan_gpio=18",
                *("dtparam=fan_temp0=55000", "dtparam=fan_temp0_speed=102"),
                *("dtparam=fan_temp1=60000", "dtparam=fan_temp1_speed=178"),
                *("dtparam=fan_temp2=64000", "dtparam=fan_temp2_speed=255"),
                *("dtparam=fan_temp3=65000", "dtparam=fan_temp3_speed=255"),
                "dtoverlay=",
            ],
        ),
    ],
)
def test_fan_is_data(name: str, settings: list[str]) -> None:
    assert board_care.fan_settings(name, 18, CURVE) == settings


def test_numbers_of_an_inventory_are_numbers() -> None:
    """Ansible's remember where they are from, and are of a class of their own."""

    class Whole(int):
        pass

    assert board_care.is_curve([{key: Whole(number) for key, number in step.items()} for step in CURVE])
    limits = {"warm": 65, "high": 75, "critical": 80, "restore": 70}
    assert board_care.is_heat({name: Whole(number) for name, number in limits.items()})
    assert not board_care.is_heat({**limits, "restore": True})


@pytest.mark.parametrize("length", board_care.STEPS)
def test_every_step_of_the_overlay_is_set_hotter_and_no_slower(length: int) -> None:
    """One that is left out would keep a figure of its own, in the middle of ours."""
    curve = [{"celsius": 70 - 5 * step, "percent": 100 - step} for step in reversed(range(length))]
    assert board_care.is_curve(curve)
    lines = [line for line in board_care.fan_settings("pwm", 18, curve) if line.startswith("dtparam=")]
    degrees = [int(line.rpartition("=")[2]) for line in lines if "speed" not in line]
    speeds = [int(line.rpartition("=")[2]) for line in lines if "speed" in line]
    assert len(degrees) == len(speeds) == 4
    assert degrees == sorted(set(degrees))
    assert speeds == sorted(speeds)
    assert all(len(line) <= config_txt.LONGEST_LINE for line in lines)


def problem(name: str, pin: int = 14, **changes: Any) -> str:
    """What is in the way of a fan."""
    found = {**FACTS, **changes}
    return board_care.fan_problem(name, pin, found, board_care.fan_settings(name, pin, CURVE))


def test_fan_that_fits_and_none_at_all_are_fine() -> None:
    assert problem("gpio", overlays=["gpio-fan"]) == ""
    assert problem("none", fan=["dtoverlay=gpio-fan"], problem="read-only") == ""
    assert board_care.fan_problem("none", 14, None, []) == ""
    done = config_txt.block(board_care.fan_settings("gpio", 14, CURVE))
    assert problem("gpio", block=done, problem="read-only") == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problem": "/boot is read-only"}, "/boot is read-only"),
        ({"fan": ["dtoverlay=gpio-fan,gpiopin=18"]}, "take that line out, or set thermal_fan: none"),
        ({"serial": ["enable_uart=1"]}, "gives GPIO 14 to the serial console (enable_uart=1)"),
        ({"overlays": ["pwm-gpio-fan"]}, "has no gpio-fan"),
        ({"overlays": []}, "has no gpio-fan"),
        ({"block": ["[all]", "dtoverlay=old"], "problem": "marks"}, "marks"),
    ],
)
def test_what_is_in_the_way_of_a_fan_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in problem("gpio", **changes)


def test_serial_console_is_in_nobodys_way_on_another_pin() -> None:
    assert problem("gpio", 18, serial=["enable_uart=1"]) == ""
    # A fixed pin counts, not the variable's.
    assert "GPIO 14" in problem("ice_tower", 18, serial=["enable_uart=1"])
    assert problem("argon_one_m2", 14, serial=["enable_uart=1"], fan=["dtoverlay=gpio-fan"]) == ""


def test_block_that_has_to_go_needs_a_file_that_can_be_written() -> None:
    assert problem("none", block=["[all]", "x"], problem="read-only") == "read-only"
    assert "mount the boot partition" in board_care.fan_problem("gpio", 14, None, ["x"])


@pytest.mark.parametrize(
    ("shed", "words"),
    [
        ([], ""),
        (["n8n"], ""),
        (["proxy", "n8n", "limiter", "redis"], ""),
        (["n8n", "shop"], "names shop, which is not in services_enabled"),
        (["n8n", "n8n"], "names n8n twice"),
        (["redis"], "name limiter before redis"),
        (["limiter", "n8n"], "name n8n before limiter"),
        (["postgres"], "name limiter, n8n before postgres"),
    ],
)
def test_services_stop_before_those_they_need(shed: list[str], words: str) -> None:
    found = board_care.shed_problem(shed, SERVICES)
    assert words in found if words else found == ""


def test_entrance_stops_first_and_databases_last() -> None:
    assert board_care.stop_order(SERVICES, ["proxy"]) == {
        "writers": ["proxy", "n8n", "limiter"],
        "stores": ["redis", "postgres"],
    }


@pytest.mark.parametrize(
    ("kernel", "seconds"),
    [
        ("5.15.0-1061-raspi", 14),
        ("6.6.51+rpt-rpi-v8", 14),
        ("6.8.0-1013-raspi", 60),
        ("6.12.34+rpt-rpi-v8", 60),
        ("", 0),
    ],
)
def test_watchdog_is_as_long_as_the_kernel_takes(kernel: str, seconds: int) -> None:
    assert board_care.watchdog_seconds(kernel) == seconds
    assert board_care.watchdog_problem(seconds, kernel) == ""


def test_watchdog_that_an_old_kernel_would_refuse_is_refused() -> None:
    """30 s is EINVAL there, and systemd goes on without one."""
    assert "before Linux 6.8 (this is 6.6.51" in board_care.watchdog_problem(15, "6.6.51+rpt-rpi-v8")
    assert board_care.watchdog_problem(300, "6.12.34+rpt-rpi-v8") == ""
