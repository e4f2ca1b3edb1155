"""Only what shall be is updated by itself, and a restart comes when it may."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

Variables = dict[str, Any]
STATE = "/var/lib/pi-commerce/updates/state.json"
SETTINGS = "/etc/pi-commerce/updates/settings.json"
LOCK = "/run/pi-commerce-at-work.lock"
# Stands before the real one in PATH, and writes down that it was asked for a restart.
SYSTEMCTL = "/usr/local/sbin/systemctl"
ASKED = "/run/molecule-restart"


def configured(host: Host, key: str) -> list[str]:
    """What apt has in force."""
    shown = host.check_output(f"apt-config dump --no-empty --format '%f %v%n' {key}")
    return [line.split(" ", 1)[1] for line in shown.splitlines()]


def test_apt_is_told_what_and_when(host: Host, variables: Variables) -> None:
    assert configured(host, "Unattended-Upgrade::Origins-Pattern") == variables["updates_origins"]
    assert configured(host, "Unattended-Upgrade::Package-Blacklist") == variables["updates_held"]
    assert configured(host, "Unattended-Upgrade::Allowed-Origins") == []
    assert configured(host, "Unattended-Upgrade::Automatic-Reboot") == ["false"]
    assert configured(host, "APT::Periodic::Unattended-Upgrade") == ["1"]
    timer = host.check_output("systemctl show --property TimersCalendar apt-daily-upgrade.timer")
    assert f"OnCalendar=*-*-* {variables['updates_install_hour']:02}:00:00" in timer
    assert timer.count("OnCalendar=") == 1, "the system's own hour is still there"
    assert host.service("apt-daily-upgrade.timer").is_enabled


def test_unattended_upgrades_takes_it(host: Host, variables: Variables) -> None:
    """The real program says what it would look at; nothing is installed."""
    host.check_output("apt-get -qq update")
    said = host.check_output("unattended-upgrade --dry-run --debug 2>&1")
    codename = host.check_output(". /etc/os-release && echo $VERSION_CODENAME")
    for pattern in variables["updates_origins"]:
        assert pattern.replace("${distro_codename}", codename) in said
    assert f"Initial blacklist: {' '.join(variables['updates_held'])}" in said
    assert not re.search(r"^Checking: (docker|containerd|runc)", said, flags=re.MULTILINE)


def test_needrestart_restarts_nothing_by_itself(host: Host) -> None:
    before = host.check_output("systemctl show --property ActiveEnterTimestampMonotonic cron.service")
    said = host.check_output("DEBIAN_FRONTEND=noninteractive needrestart -b -l")
    assert "NEEDRESTART-VER" in said
    assert host.check_output("systemctl show --property ActiveEnterTimestampMonotonic cron.service") == before


def test_status_speaks_to_people(host: Host) -> None:
    assert "restart: not wanted" in host.check_output("pi-commerce-updates status")


def test_cron_looks_at_it(host: Host, variables: Variables) -> None:
    lines = host.file("/etc/cron.d/pi-commerce-updates").content_string.splitlines()
    [path] = [line for line in lines if line.startswith("PATH=")]
    [line] = [line for line in lines if " look " in line]
    command = line.split(maxsplit=6)[6]
    host.check_output("env -i %s sh -c %s", path, command)
    metrics = host.file(f"{metrics_folder(variables)}/updates.prom")
    assert "pi_updates_reboot_wanted_timestamp_seconds 0" in metrics.content_string
    assert metrics.mode == 0o644


def metrics_folder(variables: Variables) -> str:
    """Where Prometheus reads."""
    folder = str(variables["updates_metrics_folder"])
    return "/var/backups/pi-commerce" if "{{" in folder else folder


@pytest.fixture
def restarts(host: Host) -> Iterator[None]:
    """A machine that has asked for a restart, in its window, with a systemctl that only writes that down."""
    now = time.strptime(host.check_output("date +%H:%M"), "%H:%M")
    begin = (now.tm_hour * 60 + now.tm_min - 60) % 1440
    window = [f"{minute // 60:02}:{minute % 60:02}" for minute in (begin, (begin + 180) % 1440)]
    settings = json.loads(host.file(SETTINGS).content_string)
    changed = {**settings, "window_from": window[0], "window_until": window[1], "reboot": True}
    host.check_output("echo %s > /run/molecule-settings.json", json.dumps(changed))
    host.check_output(
        f'printf \'#!/bin/sh\\n[ "$1" != reboot ] || {{ touch {ASKED}; kill $PPID; exit; }}\\n'
        f'exec /usr/bin/systemctl "$@"\\n\' > {SYSTEMCTL} && chmod 0755 {SYSTEMCTL}'
    )
    host.check_output("touch /run/reboot-required && echo linux-image-test > /run/reboot-required.pkgs")
    yield
    host.check_output(f"rm -f {SYSTEMCTL} {ASKED} /run/molecule-settings.json /run/reboot-required*")
    host.check_output("pi-commerce-updates look")


# Without the connection of these tests, and as if the machine ran for long.
LOOK = """
import sys, time
from pi_common import restarts
from pi_updates import __main__ as program, machine
machine.sessions = lambda: 0
machine.uptime = lambda: 1e6
restarts.GONE_SECONDS = 5
sys.exit(program.main(["--settings", "/run/molecule-settings.json", "look"]))
"""


def look(host: Host) -> bool:
    """Whether the machine would have restarted."""
    host.check_output(f"rm -f {ASKED}")
    host.run("PYTHONPATH=/usr/local/lib/pi-commerce/updates python3 -B -c %s", LOOK)
    return bool(host.file(ASKED).exists)


@pytest.mark.usefixtures("restarts")
def test_restart_waits_for_whoever_moves_data(host: Host) -> None:
    host.check_output(f"systemd-run --quiet --unit molecule-backup flock --shared {LOCK} sleep 60")
    host.check_output(f"for _ in $(seq 100); do flock --nonblock {LOCK} true || exit 0; sleep 0.1; done; exit 1")
    try:
        assert not look(host)
    finally:
        host.check_output("systemctl stop molecule-backup")
    assert look(host)
    assert json.loads(host.file(STATE).content_string)["because"][0] == "linux-image-test"


@pytest.mark.usefixtures("restarts")
def test_restart_waits_for_whoever_is_logged_in(host: Host) -> None:
    """These tests are."""
    host.check_output(f"rm -f {ASKED}")
    host.check_output("pi-commerce-updates --settings /run/molecule-settings.json look")
    assert not host.file(ASKED).exists
    assert "linux-image-test" in host.check_output("pi-commerce-updates status")


def test_upgrade_without_containers_has_nothing_to_do(host: Host) -> None:
    """There is an engine only where another role has brought one."""
    assert host.run("pi-commerce-updates undo").rc == 2
    refused = host.run("pi-commerce-updates --settings /nowhere.json status")
    assert refused.rc == 2
    assert "run site.yml" in refused.stderr
