"""The program that watches the UPS, and ends the machine in good order when its battery is low."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from pi_common.programs import DONE, REFUSED, WRONG
from pi_power import __main__ as program

ON_LINE = "battery.charge: 100\nbattery.runtime: 3600\nups.status: OL CHRG\n"
ON_BATTERY = "battery.charge: 61\nbattery.runtime: 900\nups.status: OB DISCHRG\n"
LOW = "battery.charge: 9\nups.status: OB LB\n"
SERVICES = ("proxy", "n8n", "limiter", "redis", "postgres")


class Pi:
    """A machine with an engine, a backup and a UPS; `calls` is what was asked of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name in ("docker", "pi-commerce-notify", "pi-commerce-backup", "halt-now"):
            self.put(name)
        self.ups(ON_LINE)
        monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        self.configure()

    def put(self, name: str, script: str = "") -> None:
        """A command that writes down what it is asked, then does more."""
        path = self.folder / "bin" / name
        known = f'case "$1" in ps) printf "%s\\n" {" ".join(SERVICES)};; esac' if name == "docker" else ""
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.folder}/calls\n{known}\n{script}\n')
        path.chmod(0o755)

    def ups(self, text: str, status: int = 0) -> None:
        """What the UPS tells."""
        (self.folder / "ups").write_text(text)
        path = self.folder / "bin/upsc"
        path.write_text(f"#!/bin/sh\ncat {self.folder}/ups\nexit {status}\n")
        path.chmod(0o755)

    def configure(self, **changes: Any) -> None:
        """Write the settings."""
        content = {
            "ups": "ups@127.0.0.1",
            "project": "shop",
            "folder": str(self.folder / "state"),
            "metrics": str(self.folder / "power.prom"),
            "writers": list(SERVICES[:3]),
            "stores": list(SERVICES[3:]),
            "drain_seconds": 60,
            "halt": "halt-now --force",
            **changes,
        }
        (self.folder / "settings.json").write_text(json.dumps(content))

    def run(self, verb: str) -> int:
        """The program's exit code."""
        return program.main(["--settings", str(self.folder / "settings.json"), verb])

    @property
    def calls(self) -> list[str]:
        """What was asked, in order, without questions."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith("docker ps")]

    def told(self) -> list[str]:
        """Titles of the messages."""
        return [re.sub(r".*(--level \w+)( --key \S+)? ", "", call) for call in self.calls if "--level" in call]


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pi:
    return Pi(tmp_path, monkeypatch)


def test_power_cut_is_told_once_and_its_end(pi: Pi) -> None:
    for text in (ON_LINE, ON_BATTERY, ON_BATTERY, LOW, LOW, ON_LINE, ON_LINE):
        pi.ups(text)
        assert pi.run("look") == DONE
    assert pi.told() == ["The shop runs on battery", "The battery is low", "The mains are back"]


def test_ups_that_does_not_answer_is_told_of_and_counts_as_unknown(pi: Pi) -> None:
    pi.ups("Error: Data stale\n", 1)
    pi.run("look")
    assert pi.told() == []
    pi.run("look")
    pi.run("look")
    assert pi.told() == ["The UPS does not answer"]
    text = (pi.folder / "power.prom").read_text()
    assert 'pi_power_ups_status{flag="OL"} NaN' in text
    assert "pi_power_battery_percent NaN" in text
    assert pi.run("status") == WRONG
    pi.ups(ON_LINE)
    pi.run("look")
    text = (pi.folder / "power.prom").read_text()
    assert 'pi_power_ups_status{flag="OL"} 1' in text
    assert 'pi_power_ups_status{flag="OB"} 0' in text
    assert "pi_power_battery_percent 100" in text
    assert pi.run("status") == DONE


def test_battery_that_wears_out_is_told_of(pi: Pi) -> None:
    pi.ups("ups.status: OL RB\n")
    pi.run("look")
    assert pi.told() == ["The UPS wants a new battery"]


DOWN = [
    "pi-commerce-notify --level critical The battery is nearly empty",
    "docker stop shop-proxy-1",
    "docker stop shop-n8n-1",
    "docker stop shop-limiter-1",
    "pi-commerce-backup settle",
    "docker stop shop-redis-1",
    "docker stop shop-postgres-1",
    "halt-now --force",
]


def test_shop_is_drained_and_saved_before_the_machine_ends(pi: Pi) -> None:
    assert pi.run("down") == DONE
    assert pi.calls == DOWN


def test_everything_comes_back_at_the_next_boot_databases_first(pi: Pi) -> None:
    pi.run("down")
    assert pi.run("up") == DONE
    started = [call for call in pi.calls if call.startswith("docker start")]
    assert started == [f"docker start shop-{name}-1" for name in reversed(SERVICES)]
    assert not (pi.folder / "state/stopped.json").exists()
    assert pi.run("up") == DONE
    assert len([call for call in pi.calls if call.startswith("docker start")]) == len(SERVICES)


def test_what_did_not_run_is_neither_stopped_nor_started(pi: Pi) -> None:
    """The role thermal may have stopped it, and starts it when it is cool."""
    pi.put("docker")
    path = pi.folder / "bin/docker"
    path.write_text(path.read_text().replace("n8n ", ""))
    pi.run("down")
    pi.run("up")
    assert not [call for call in pi.calls if "n8n" in call]


@pytest.mark.parametrize("broken", ["docker", "pi-commerce-backup", "pi-commerce-notify"])
def test_machine_ends_whatever_fails(pi: Pi, broken: str) -> None:
    pi.put(broken, "echo no >&2; exit 1")
    assert pi.run("down") == DONE
    assert pi.calls[-1] == "halt-now --force"


def test_machine_ends_although_nothing_can_be_written(pi: Pi) -> None:
    (pi.folder / "file").touch()
    pi.configure(folder=str(pi.folder / "file/state"))
    assert pi.run("down") == DONE
    assert pi.calls == DOWN


def test_down_that_was_cut_off_and_begun_anew_forgets_nothing(pi: Pi) -> None:
    pi.run("down")
    pi.put("docker")
    path = pi.folder / "bin/docker"
    path.write_text(path.read_text().replace("proxy n8n ", ""))
    pi.run("down")
    kept = json.loads((pi.folder / "state/stopped.json").read_text())
    assert kept["services"] == sorted(SERVICES)


def test_service_that_does_not_end_costs_the_others_their_time_and_not_the_databases_theirs(pi: Pi) -> None:
    pi.configure(drain_seconds=1)
    pi.put("docker", 'case "$*" in "stop shop-proxy-1") exec sleep 20;; esac')
    began = time.monotonic()
    assert pi.run("down") == DONE
    assert time.monotonic() - began < 10
    assert [call for call in pi.calls if call.startswith(("docker stop", "pi-commerce-b", "halt"))] == DOWN[1:]


def test_service_that_does_not_come_back_is_said_and_tried_again(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    pi.run("down")
    pi.put("docker", 'case "$*" in "start shop-n8n-1") echo broken >&2; exit 1;; esac')
    assert pi.run("up") == WRONG
    assert "docker start shop-n8n-1: ended with 1: broken" in capsys.readouterr().err
    assert "docker start shop-proxy-1" in pi.calls
    pi.put("docker")
    assert pi.run("up") == DONE


@pytest.mark.parametrize("content", ["{", "{}"])
def test_settings_that_are_none_are_refused(pi: Pi, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (pi.folder / "settings.json").write_text(content)
    assert pi.run("down") == REFUSED
    assert "run site.yml" in capsys.readouterr().err
    assert pi.calls == []
