"""A machine restarts itself only when that is asked for, in the window, alone, and not over and over."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pi_common import alerts, locks, restarts
from pi_common.errors import Busy, PiError, Refused
from pi_updates import engine, machine, reboots, settings
from pi_updates.settings import Settings

NIGHT = time.mktime((2030, 6, 1, 4, 30, 0, 0, 0, -1))
NOON = time.mktime((2030, 6, 1, 12, 0, 0, 0, 0, -1))
DAY = 86400


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a machine that wants a restart and has nothing against it."""
    monkeypatch.setattr(locks, "AT_WORK", tmp_path / "at-work.lock")
    monkeypatch.setattr(alerts, "PROGRAM", "nobody")
    monkeypatch.setattr(machine, "reasons", lambda: ["linux-image-rpi-v8"])
    monkeypatch.setattr(machine, "uptime", lambda: 30.0 * DAY)
    monkeypatch.setattr(machine, "sessions", lambda: 0)
    monkeypatch.setattr(restarts, "packages_at_work", lambda: False)
    monkeypatch.setattr(restarts, "GONE_SECONDS", 0)
    monkeypatch.setattr(machine, "updated", lambda: NIGHT - 3600)
    monkeypatch.setattr(machine, "failed_units", list)
    monkeypatch.setattr(machine, "outdated", list)
    monkeypatch.setattr(machine, "changed", lambda: 1.0)
    monkeypatch.setattr(engine, "running", lambda _project: {})
    return Settings(
        folder=tmp_path / "state",
        metrics=tmp_path / "updates.prom",
        window_from="04:00",
        window_until="06:00",
        reboot=True,
        pending_days=7,
        stale_days=3,
        healthy_seconds=30,
        watched_seconds=5,
        project="pi-commerce",
        compose=tmp_path,
        held=(),
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Commands that would have been run; a restart ends the process."""
    found: list[tuple[str, ...]] = []
    monkeypatch.setattr(restarts, "run", lambda *words, **_: found.append(words))
    return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What the owner is told, and what is cleared."""
    found: list[tuple[str, ...]] = []
    monkeypatch.setattr(alerts, "_call", lambda *words, **_: found.append(words))
    return found


def test_restarts_in_the_window(known: Settings, calls: list[tuple[str, ...]]) -> None:
    with pytest.raises(PiError, match="still there"):
        reboots.look(known, NIGHT)
    assert calls == [("systemctl", "reboot")]
    assert "rebooting" not in reboots.state(known), "the next start would be taken for this one"


OBSTACLES: list[tuple[str, Callable[[pytest.MonkeyPatch], Any], str]] = [
    ("logged in", lambda patch: patch.setattr(machine, "sessions", lambda: 1), "somebody is logged in"),
    ("packages", lambda patch: patch.setattr(restarts, "packages_at_work", lambda: True), "packages are being"),
    ("just started", lambda patch: patch.setattr(machine, "uptime", lambda: 600.0), "not long ago"),
]


@pytest.mark.parametrize(("hinder", "why"), [case[1:] for case in OBSTACLES], ids=[case[0] for case in OBSTACLES])
def test_what_keeps_it_from_that(
    known: Settings,
    calls: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    hinder: Callable[[pytest.MonkeyPatch], Any],
    why: str,
) -> None:
    hinder(monkeypatch)
    assert why in reboots.look(known, NIGHT)
    assert calls == []


def test_not_outside_the_window_and_not_where_it_is_off(known: Settings, calls: list[tuple[str, ...]]) -> None:
    assert "not between 04:00 and 06:00" in reboots.look(known, NOON)
    assert "off" in reboots.look(dataclasses.replace(known, reboot=False), NIGHT)
    assert calls == []


def test_never_while_data_is_moved(known: Settings, calls: list[tuple[str, ...]]) -> None:
    with locks.held(locks.AT_WORK, Busy(), shared=True):
        assert "a backup, a drill, a restore or an upgrade is at work" in reboots.look(known, NIGHT)
    assert calls == []


def test_nothing_begins_to_move_data_once_the_restart_has_begun(
    known: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restarting(*_: str, **__: float) -> None:
        with locks.held(locks.AT_WORK, Busy("too late"), shared=True):
            pass

    monkeypatch.setattr(restarts, "run", restarting)
    with pytest.raises(Busy, match="too late"):
        reboots.restart(known, ["kernel"])


def test_nothing_wanted_is_nothing_done(
    known: Settings, calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reboots.look(known, NOON)
    monkeypatch.setattr(machine, "reasons", list)
    assert reboots.look(known, NIGHT) == ""
    assert calls == []
    assert "wanted" not in reboots.state(known)


@pytest.mark.parametrize(
    ("begin", "end", "minute", "inside"),
    [
        *((240, 360, 240, True), (240, 360, 359, True), (240, 360, 360, False), (240, 360, 239, False)),
        *((1380, 120, 1400, True), (1380, 120, 60, True), (1380, 120, 120, False), (1380, 120, 720, False)),
    ],
)
def test_window(begin: int, end: int, minute: int, inside: bool) -> None:
    now = time.mktime((2030, 6, 1, minute // 60, minute % 60, 30, 0, 0, -1))
    assert machine.in_window(begin, end, now) is inside


def test_overdue_restart_is_told_once_it_is_and_cleared_after(
    known: Settings, told: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "updated", lambda: NOON + 8 * DAY)
    reboots.look(known, NOON)
    assert told == []
    reboots.look(known, NOON + 8 * DAY)
    assert told[-1][:4] == ("--key", "updates-pending", "--level", "warning")
    monkeypatch.setattr(machine, "reasons", list)
    reboots.look(known, NOON + 8 * DAY)
    assert told[-1] == ("--key", "updates-pending", "--clear")
    count = len(told)
    reboots.look(known, NOON + 8 * DAY)
    assert len(told) == count


def test_updates_that_do_not_come_are_told(
    known: Settings, told: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "reasons", list)
    monkeypatch.setattr(machine, "updated", lambda: 0.0)
    reboots.look(known, NOON)
    assert told == [], "a machine of today has had no night yet"
    reboots.look(known, NOON + 4 * DAY)
    assert told[-1][:2] == ("--key", "updates-stale")
    monkeypatch.setattr(machine, "updated", lambda: NOON + 4 * DAY)
    reboots.look(known, NOON + 4 * DAY)
    assert told[-1] == ("--key", "updates-stale", "--clear")


def test_clock_that_was_wrong_makes_nobody_wait(known: Settings) -> None:
    reboots.look(known, NOON + 1000 * DAY)
    reboots.look(known, NOON)
    assert reboots.state(known)["wanted"] == NOON


def test_after_a_restart_of_ours_all_is_looked_at(known: Settings, told: list[tuple[str, ...]]) -> None:
    reboots.remember(known, rebooting=NIGHT, because=["linux-image-rpi-v8"])
    assert reboots.booted(known, NIGHT + 60) == []
    assert reboots.state(known)["rebooted"] == NIGHT + 60
    assert [words[1] for words in told if words[0] == "--level"] == ["info"]
    assert "pi_updates_unwell 0" in known.metrics.read_text()


def test_what_is_not_well_after_it_is_urgent(
    known: Settings, told: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = engine.Running("n8n", "pi-commerce-n8n-1", "n8n:1", "sha256:1", 3, "restarting")
    monkeypatch.setattr(engine, "running", lambda _project: {"n8n": one})
    monkeypatch.setattr(machine, "failed_units", lambda: ["nut.service"])
    reboots.remember(known, rebooting=NIGHT, because=["kernel"])
    waited: list[float] = []
    found = reboots.booted(known, NIGHT + 60, waited.append)
    assert found == ["n8n is restarting", "nut.service has failed"]
    assert sum(waited) == known.healthy_seconds
    assert told[-1][:4] == ("--key", "updates-unwell", "--level", "critical")
    assert "pi_updates_unwell 1" in known.metrics.read_text()
    assert "  wrong since then: n8n is restarting" in reboots.lines(known, NOON)


def test_start_that_was_not_ours_is_no_business_of_ours(known: Settings, told: list[tuple[str, ...]]) -> None:
    assert reboots.booted(known, NIGHT) == []
    assert told == []
    assert known.metrics.exists()


def test_programs_are_looked_at_when_packages_have_changed_or_some_were_outdated(
    known: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a Pi seconds: not every few minutes."""
    monkeypatch.setattr(machine, "reasons", list)
    found: list[str] = []
    asked: list[int] = []

    def outdated() -> list[str]:
        asked.append(1)
        return found

    monkeypatch.setattr(machine, "outdated", outdated)
    for _ in range(3):
        reboots.look(known, NOON)
    assert len(asked) == 1
    found.append("ssh.service")
    monkeypatch.setattr(machine, "changed", lambda: 2.0)
    reboots.look(known, NOON)
    assert reboots.state(known)["why"] == ["ssh.service"]
    found.clear()
    reboots.look(known, NOON)
    reboots.look(known, NOON)
    assert len(asked) == 3
    assert "why" not in reboots.state(known)


def write(root: Path, path: str, content: str = "") -> None:
    """A file below the root."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def test_sessions_are_told_from_the_server_itself(tmp_path: Path) -> None:
    commands = ["/sbin/init\0", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\0", "bash\0sshd: pi@notty\0"]
    for number, command in enumerate(commands):
        write(tmp_path, f"proc/{number}/cmdline", command)
    assert machine.sessions(tmp_path) == 0
    write(tmp_path, "proc/77/cmdline", "sshd: pi@notty\0\0")
    write(tmp_path, "proc/78/cmdline", "sshd-session: pi [priv]\0")
    assert machine.sessions(tmp_path) == 2


APT = """
import fcntl, sys, time
with open(sys.argv[1], "a") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(60)
"""


def test_apt_at_work_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It locks as dpkg does."""
    write(tmp_path, "var/lib/dpkg/lock-frontend")
    monkeypatch.setattr(restarts, "DPKG", tmp_path / "var/lib/dpkg/lock-frontend")
    assert not restarts.packages_at_work()
    command = [sys.executable, "-c", APT, str(tmp_path / "var/lib/dpkg/lock-frontend")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as apt:
        assert apt.stdout is not None
        assert apt.stdout.readline() == "locked\n"
        assert restarts.packages_at_work()
        apt.kill()
    assert not restarts.packages_at_work()


def test_reasons_are_packages_and_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "NEEDRESTART-VER: 3.6\nNEEDRESTART-SVC: ssh.service\nNEEDRESTART-SVC: cron.service\nNEEDRESTART-KSTA: 3\n"
    monkeypatch.setattr(machine, "run", lambda *_, **__: told)
    assert machine.outdated() == ["cron.service", "ssh.service"], "a kernel is none by itself"
    assert machine.reasons(tmp_path) == []
    write(tmp_path, "run/reboot-required")
    assert machine.reasons(tmp_path) == ["the system asks for it"]
    write(tmp_path, "run/reboot-required.pkgs", "linux-image-rpi-v8\nlinux-image-rpi-v8\n")
    assert machine.reasons(tmp_path) == ["linux-image-rpi-v8"]


def test_settings_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"run site\.yml"):
        settings.load(tmp_path / "settings.json")
    (tmp_path / "settings.json").write_text(json.dumps({"folder": "/x"}))
    with pytest.raises(Refused, match="metrics"):
        settings.load(tmp_path / "settings.json")
