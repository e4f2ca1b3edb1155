"""Files come back by themselves, and only a connection made afterwards makes a change stay."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

FOLDER = "/etc/pi-commerce-guarded"

Anew = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def guarded(host: Host) -> Iterator[None]:
    """A folder with settings, and nothing armed before and after."""
    # What another test has proven would be what this one gets back.
    host.check_output("rm -rf /var/lib/pi-commerce/guard/proven")
    host.check_output(f"mkdir -p {FOLDER} && echo good > {FOLDER}/settings")
    yield
    host.check_output("pi-commerce-guard restore --why 'the test is over'")
    host.check_output(f"rm -r {FOLDER}")


@pytest.fixture
def anew(host: Host) -> Anew:
    """Runs a command on the Pi, as root, by a connection of its own."""

    def run(command: str) -> subprocess.CompletedProcess[str]:
        options = ("-F", host.backend.ssh_config, "-o", "ControlPath=none", "-o", "ControlMaster=no")
        words = ["ssh", *options, "shop-pi", f"sudo {command}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)

    return run


def status(host: Host) -> dict[str, Any]:
    """What the guard tells."""
    found: dict[str, Any] = json.loads(host.check_output("pi-commerce-guard status"))
    return found


def settings(host: Host) -> str:
    """The settings now."""
    return host.check_output(f"cat {FOLDER}/settings")


def test_timer_puts_everything_back_and_says_so(host: Host) -> None:
    host.check_output(f"pi-commerce-guard arm {FOLDER} --seconds 2")
    host.check_output(f"echo bad > {FOLDER}/settings; touch {FOLDER}/more")
    deadline = time.monotonic() + 60
    while status(host)["armed"]:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert settings(host) == "good"
    assert not host.file(f"{FOLDER}/more").exists
    report = status(host)["report"]
    assert "no new connection came within 2 s" in report["why"]
    assert report["put_back"] == [FOLDER]
    assert "no new connection came within 2 s" in host.check_output("journalctl -u pi-commerce-guard --output cat")


def test_only_a_new_connection_disarms(host: Host, anew: Anew) -> None:
    host.check_output(f"pi-commerce-guard arm {FOLDER} --seconds 120")
    host.check_output(f"echo better > {FOLDER}/settings")
    # The tests' connection was open before.
    old = host.run("pi-commerce-guard disarm")
    assert (old.rc, "older than the change" in old.stderr) == (2, True)
    local = host.run("systemd-run --quiet --pipe --wait pi-commerce-guard disarm")
    assert (local.rc, "did not come by SSH" in local.stderr) == (2, True)
    assert status(host)["armed"]
    new = anew("pi-commerce-guard disarm")
    assert new.returncode == 0, new.stderr
    assert not status(host)["armed"]
    assert "pi-commerce-guard.timer" not in host.check_output("systemctl list-timers --all --no-legend")
    assert settings(host) == "better"


def test_at_boot_the_unit_puts_back_what_a_power_cut_has_left(host: Host) -> None:
    host.check_output(f"pi-commerce-guard arm {FOLDER} --seconds 3000")
    host.check_output(f"echo bad > {FOLDER}/settings")
    host.check_output("systemctl stop pi-commerce-guard.timer")
    host.check_output("systemctl start pi-commerce-guard-boot.service")
    assert settings(host) == "good"
    assert "started again" in status(host)["report"]["why"]
    assert host.check_output("systemctl is-enabled pi-commerce-guard-boot.service") == "enabled"
    before = host.check_output("systemctl show --property Before --value pi-commerce-guard-boot.service").split()
    assert {"ssh.service", "ufw.service", "network-pre.target"} <= set(before)


def test_timer_has_the_ssh_server_read_its_settings_without_waiting_for_its_own_end(host: Host) -> None:
    """A unit that is ordered before the server would wait for the server, which waits for it."""
    host.check_output("pi-commerce-guard arm /etc/ssh/sshd_config.d --seconds 1")
    host.check_output("touch /etc/ssh/sshd_config.d/90-more.conf")
    deadline = time.monotonic() + 60
    while status(host)["armed"]:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    steps = {step["command"]: step["outcome"] for step in status(host)["report"]["steps"]}
    assert steps["systemctl reload ssh.service"] == "done"


def test_ssh_server_that_does_not_run_is_started(host: Host) -> None:
    host.check_output(f"pi-commerce-guard arm {FOLDER} --seconds 120")
    host.check_output("systemctl stop ssh.service")
    host.check_output("pi-commerce-guard restore")
    assert host.check_output("systemctl is-active ssh.service") == "active"


def test_nobody_but_root_uses_it(host: Host) -> None:
    refused = host.run(f"runuser -u pi -- pi-commerce-guard arm {FOLDER} --seconds 5")
    assert (refused.rc, "for root only" in refused.stderr) == (2, True)
