"""The board is watched: figures, alerts through the real notify, services that are stopped and come back."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import config_txt
import heat_curve
import pytest
from testinfra.host import Host

SENSOR = "sys/class/thermal/thermal_zone0/temp"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
LIBRARY = "/usr/local/lib/pi-commerce/thermal"


@pytest.fixture(scope="module")
def settings(host: Host) -> dict[str, Any]:
    """What the role has written."""
    found: dict[str, Any] = json.loads(host.file("/etc/pi-commerce/thermal/settings.json").content_string)
    return found


def figures(host: Host, settings: dict[str, Any]) -> dict[str, str]:
    """What Prometheus reads."""
    lines = host.file(settings["metrics"]).content_string.splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def told(host: Host, since: str) -> list[str]:
    """Titles that the real notify was given since a moment; it has no target, so they stand in the journal."""
    said = host.check_output(f"journalctl -t pi-commerce-notify --since '{since}' --output cat")
    found = [line for line in said.splitlines() if "no target takes it: " in line]
    return [line.partition("no target takes it: ")[2].partition(" | ")[0] for line in found]


def states(host: Host, services: list[str]) -> list[str]:
    """Whether services run."""
    names = " ".join(f"pi-commerce-{name}-1" for name in services)
    return host.check_output(f"docker inspect --format '{{{{.State.Status}}}}' {names}").split()


def test_service_runs_at_every_start_and_writes_figures(host: Host, settings: dict[str, Any]) -> None:
    service = host.service("pi-commerce-thermal.service")
    assert service.is_enabled
    assert service.is_running
    deadline = time.monotonic() + 30
    while not host.file(settings["metrics"]).exists:
        assert time.monotonic() < deadline, "it writes nothing"
        time.sleep(0.5)
    shown = int(host.check_output(f"cat {settings['root']}/{SENSOR}")) / 1000
    assert float(figures(host, settings)["pi_thermal_celsius"]) == shown
    assert figures(host, settings)['pi_thermal_bit{bit="under_voltage",since="now"}'] == "0"


def test_files_of_older_programs_are_gone_and_nobody_but_root_may(host: Host) -> None:
    assert "old.py" not in host.file(f"{LIBRARY}/pi_thermal").listdir()
    refused = host.run("runuser -u pi -- pi-commerce-thermal look")
    assert (refused.rc, "for root only" in refused.stderr) == (2, True)


def test_fan_stands_in_the_firmwares_settings_beside_what_was_there(
    host: Host, settings: dict[str, Any], variables: dict[str, Any]
) -> None:
    path = f"{settings['root']}/boot/firmware/config.txt"
    text = host.file(path).content.decode()
    if variables["thermal_fan"] == "none":
        assert config_txt.BEGIN not in text
        return
    before = host.file("/run/config.txt.before").content.decode()
    assert text.startswith(before + "\r\n" + config_txt.BEGIN)
    lines = [line.strip() for line in text.removeprefix(before).splitlines()]
    assert lines[1:4] == [config_txt.BEGIN, "[all]", "dtoverlay=pwm-gpio-fan,fan_gpio=18"]
    assert "dtparam=fan_temp1=62000" in lines
    assert "dtparam=fan_temp1_speed=255" in lines
    # Another board: this machine needs no start for it.
    assert not host.file("/run/reboot-required").exists


def test_hot_afternoon_is_told_acted_upon_and_over_once_each(host: Host, settings: dict[str, Any]) -> None:
    shed = settings["shed"]
    if not shed:
        pytest.skip("the board is shared by other tests, and nothing may be stopped")
    limits = settings["celsius"]
    root = settings["root"]
    since = host.check_output("date '+%Y-%m-%d %H:%M:%S'")
    # The journal is asked by full seconds.
    time.sleep(1)
    host.check_output("systemctl stop pi-commerce-thermal.service")
    seen = []
    try:
        for celsius, bits in heat_curve.LOOKS:
            host.check_output(f"echo {celsius * 1000:.0f} > {root}/{SENSOR}; echo {bits:x} > {root}/{FIRMWARE}")
            host.check_output("pi-commerce-thermal look")
            seen.append(states(host, shed))
            if celsius >= limits["critical"] and "running" in seen[-1]:
                # The one before has had its time to help.
                time.sleep(settings["shed_seconds"])
    finally:
        host.check_output(f"echo 48199 > {root}/{SENSOR}; echo 0 > {root}/{FIRMWARE}; pi-commerce-thermal restore")
        host.check_output("systemctl start pi-commerce-thermal.service")
    assert ["exited"] * len(shed) in seen
    changes = [state for before, state in itertools.pairwise(seen) if state != before]
    assert changes == [["exited", "running"], ["exited", "exited"], ["running", "running"]]
    titles = told(host, since)
    for title in (
        "The Pi is warm",
        "The Pi is hot",
        "The Pi is too hot",
        "The Pi has a problem: throttled",
        "The Pi has a problem: too little voltage",
        *(f"{name} was stopped because the Pi is too hot" for name in shed),
        *(f"{name} runs again" for name in shed),
        "The Pi is cool again",
    ):
        assert titles.count(title) == 1, titles


def test_sensor_that_is_gone_is_unknown_and_not_healthy(host: Host, settings: dict[str, Any]) -> None:
    if not settings["shed"]:
        pytest.skip("the board is shared by other tests")
    root = settings["root"]
    host.check_output(f"mv {root}/{SENSOR} {root}/kept-temp; mv {root}/{FIRMWARE} {root}/kept-bits")
    try:
        host.check_output("pi-commerce-thermal look")
        found = figures(host, settings)
        assert host.run("pi-commerce-thermal status").rc == 1
    finally:
        host.check_output(f"mv {root}/kept-temp {root}/{SENSOR}; mv {root}/kept-bits {root}/{FIRMWARE}")
    assert found["pi_thermal_celsius"] == "NaN"
    assert found['pi_thermal_bit{bit="under_voltage",since="now"}'] == "NaN"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dtoverlay=gpio-fan,gpiopin=12", "sets up a fan already, by hand (dtoverlay=gpio-fan,gpiopin=12)"),
        ("enable_uart=1", "gives GPIO 14 to the serial console (enable_uart=1)"),
        (config_txt.BEGIN, "have to stand in it once each"),
    ],
)
def test_config_txt_that_is_in_the_way_is_refused_and_stays(host: Host, apply: Any, line: str, words: str) -> None:
    path = "/opt/other-board/boot/firmware/config.txt"
    host.check_output("rm -rf /opt/other-board; cp -r /usr/share/virtual-pi/pi4-4gb /opt/other-board")
    try:
        host.check_output(f"printf '\\n{line}\\n' >> {path}")
        before = host.check_output(f"sha256sum {path}")
        refused = apply("thermal", hardware_root="/opt/other-board", thermal_fan="ice_tower")
        assert refused.returncode != 0
        assert words in refused.stdout
        assert host.check_output(f"sha256sum {path}") == before
    finally:
        host.check_output("rm -r /opt/other-board")


def test_card_that_cannot_be_written_is_refused_in_words(host: Host, apply: Any) -> None:
    boot = "/opt/other-board/boot/firmware"
    host.check_output("rm -rf /opt/other-board; cp -r /usr/share/virtual-pi/pi4-4gb /opt/other-board")
    host.check_output(f"mount --bind {boot} {boot} && mount -o remount,bind,ro {boot}")
    try:
        refused = apply("thermal", hardware_root="/opt/other-board", thermal_fan="gpio")
    finally:
        host.check_output(f"umount {boot} && rm -r /opt/other-board")
    assert refused.returncode != 0
    assert f"{boot}/config.txt: its file system is read-only" in refused.stdout


def test_services_that_others_need_are_not_stopped_under_them(apply: Any) -> None:
    refused = apply("thermal", thermal_shed=["redis"])
    assert refused.returncode != 0
    assert "name posting_queue, rate_limiter before redis" in refused.stdout
