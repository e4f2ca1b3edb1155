"""The program that watches the board: what it reads, whom it tells how often, what it stops and brings back."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import board
import heat_curve
import pytest
from pi_common import files
from pi_common.programs import DONE, REFUSED, WRONG
from pi_thermal import __main__ as program
from pi_thermal import fan, heat, reading

SENSOR = "sys/class/thermal/thermal_zone0/temp"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
CURVE = [{"celsius": 55, "percent": 40}, {"celsius": 60, "percent": 70}, {"celsius": 64, "percent": 100}]
EVERY = 15


class Pi:
    """A board, an engine and a way to tell people; `calls` is what was asked of the last two."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.clock = folder, 1000.0
        self.board(48.2, 0)
        (folder / "bin").mkdir()
        for name in ("docker", "pi-commerce-notify"):
            self.put(name, f'echo "{name} $*" >> {folder}/calls; cat > /dev/null')
        monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(time, "clock_gettime", lambda clock: self.clock)
        self.configure()

    def put(self, name: str, script: str) -> None:
        """Have a command do something else."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def board(self, celsius: float | None, throttled: int | None) -> None:
        """What the board tells."""
        for path, text in (
            (SENSOR, None if celsius is None else f"{celsius * 1000:.0f}\n"),
            (FIRMWARE, None if throttled is None else f"{throttled:x}\n"),
        ):
            place = self.folder / "hardware" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            if text is not None:
                place.write_text(text)

    def configure(self, **changes: Any) -> None:
        """Write the settings."""
        content = {
            "root": str(self.folder / "hardware"),
            "project": "shop",
            "folder": str(self.folder / "state"),
            "metrics": str(self.folder / "metrics/thermal.prom"),
            "every_seconds": EVERY,
            "celsius": {"warm": 65, "high": 75, "critical": 80, "restore": 70},
            "hysteresis": 3,
            "quiet_minutes": 10,
            "shed": ["n8n", "limiter"],
            "shed_seconds": 30,
            "bus": "",
            "address": 0,
            "curve": [],
            **changes,
        }
        (self.folder / "settings.json").write_text(json.dumps(content))

    def run(self, verb: str = "look") -> int:
        """The program's exit code."""
        return program.main(["--settings", str(self.folder / "settings.json"), verb])

    def look(self, celsius: float | None, throttled: int | None = 0) -> None:
        """A look at a board that tells this, some seconds after the last."""
        self.board(celsius, throttled)
        self.clock += EVERY
        assert self.run() == DONE

    @property
    def calls(self) -> list[str]:
        """What was asked of docker and of notify, in order."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def told(self) -> list[str]:
        """Titles of the messages, without clearing."""
        return [re.sub(r".*(--level \w+)( --key \S+)? ", "", call) for call in self.calls if "--level" in call]

    def engine(self) -> list[str]:
        """What was asked of docker, without questions."""
        return [call.removeprefix("docker ") for call in self.calls if re.match("docker st", call)]

    def metric(self, name: str) -> str:
        """A figure as Prometheus reads it."""
        text = (self.folder / "metrics/thermal.prom").read_text()
        return next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} "))


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pi:
    return Pi(tmp_path, monkeypatch)


def test_recorded_afternoon_is_told_acted_upon_and_over_once_each(pi: Pi) -> None:
    for celsius, throttled in heat_curve.LOOKS:
        pi.look(celsius, throttled)
    assert pi.told() == [
        "The Pi is warm",
        "The Pi is hot",
        "The Pi is too hot",
        "n8n was stopped because the Pi is too hot",
        "limiter was stopped because the Pi is too hot",
        "The Pi has a problem: throttled",
        "The Pi has a problem: too little voltage",
        "limiter runs again",
        "n8n runs again",
        "The Pi is cool again",
    ]
    assert pi.engine() == ["stop shop-n8n-1", "stop shop-limiter-1", "start shop-limiter-1", "start shop-n8n-1"]
    cleared = [call for call in pi.calls if "--clear" in call]
    assert len(cleared) == len(set(cleared)) == 5
    assert pi.metric("pi_thermal_level") == "0"


def test_services_stop_one_after_the_other_and_only_while_it_is_critical(pi: Pi) -> None:
    pi.look(80.0)
    assert pi.engine() == ["stop shop-n8n-1"]
    # The first has its time to help; then it is below the limit, though not out of it.
    pi.look(80.5)
    pi.look(79.9)
    pi.look(78.0)
    assert pi.engine() == ["stop shop-n8n-1"]
    pi.look(80.1)
    assert pi.engine()[1:] == ["stop shop-limiter-1"]
    # What is left has to go on, however hot.
    for _ in range(10):
        pi.look(84.0)
    pi.look(70.0)
    assert len(pi.engine()) == 2
    pi.look(69.9)
    assert pi.engine()[2:] == ["start shop-limiter-1", "start shop-n8n-1"]


def test_service_that_somebody_has_started_again_is_stopped_again(pi: Pi) -> None:
    pi.configure(shed=["n8n"])
    pi.look(81.0)
    pi.put("docker", f'echo "docker $*" >> {pi.folder}/calls; [ "$1" != ps ] || echo n8n')
    pi.look(81.0)
    pi.look(81.0)
    assert pi.engine() == ["stop shop-n8n-1"] * 2
    pi.look(60.0)
    assert pi.engine()[2:] == ["start shop-n8n-1"]


def test_without_a_list_nothing_is_stopped(pi: Pi) -> None:
    pi.configure(shed=[])
    pi.look(84.0)
    assert pi.engine() == []
    assert pi.told() == ["The Pi is warm", "The Pi is hot", "The Pi is too hot"]


def test_unknown_is_never_cool(pi: Pi) -> None:
    """A sensor that is gone brings nothing back, clears nothing, and is told of."""
    pi.look(81.0, 0x4)
    before = pi.calls
    for _ in range(heat.BLIND_LOOKS - 1):
        pi.look(None, None)
    assert pi.calls == before
    assert pi.metric("pi_thermal_celsius") == "NaN"
    text = (pi.folder / "metrics/thermal.prom").read_text()
    assert 'pi_thermal_bit{bit="under_voltage",since="now"} NaN' in text
    pi.look(None, None)
    pi.look(None, None)
    assert pi.told()[-1] == "The Pi's temperature cannot be read"
    assert pi.run("status") == WRONG


@pytest.mark.parametrize("text", ["", "-200000\n", "200000\n", "hot\n"])
def test_figure_that_is_none_is_unknown(pi: Pi, text: str) -> None:
    (pi.folder / "hardware" / SENSOR).write_text(text)
    assert reading.read(str(pi.folder / "hardware")).celsius is None


def test_figures_are_exported(pi: Pi) -> None:
    pi.look(48.199, 0x50005)
    assert pi.metric("pi_thermal_celsius") == "48.199"
    text = (pi.folder / "metrics/thermal.prom").read_text()
    for bit, now, start in (("under_voltage", 1, 1), ("frequency_capped", 0, 0), ("throttled", 1, 1)):
        assert f'pi_thermal_bit{{bit="{bit}",since="now"}} {now}\n' in text
        assert f'pi_thermal_bit{{bit="{bit}",since="start"}} {start}\n' in text
    assert 'pi_thermal_shed{service="n8n"} 0\n' in text
    assert (pi.folder / "metrics/thermal.prom").stat().st_mode & 0o777 == 0o644


def test_path_of_another_kernel_is_found(tmp_path: Path) -> None:
    place = tmp_path / "sys/devices/platform/scb/raspberrypi-firmware/get_throttled"
    place.parent.mkdir(parents=True)
    place.write_text("0x50000\n")
    found = reading.read(str(tmp_path))
    assert found.now == dict.fromkeys(board.BITS, False)
    assert found.past == {**dict.fromkeys(board.BITS, False), "under_voltage": True, "throttled": True}


def test_voltage_sensor_knows_of_one_bit_and_says_nothing_of_the_others(tmp_path: Path) -> None:
    sensor = tmp_path / "sys/class/hwmon/hwmon1"
    sensor.mkdir(parents=True)
    (sensor / "name").write_text("rpi_volt\n")
    (sensor / "in0_lcrit_alarm").write_text("1\n")
    assert reading.read(str(tmp_path)).now == {**reading.UNKNOWN, "under_voltage": True}
    assert reading.read(str(tmp_path)).past == reading.UNKNOWN


def test_bit_is_told_again_after_a_quiet_time_only(pi: Pi) -> None:
    pi.look(50.0, 0x50005)
    pi.look(50.0, 0x50000)
    pi.look(50.0, 0x50005)
    assert len(pi.told()) == 2
    for _ in range(10 * 60 // EVERY + 2):
        pi.look(50.0, 0x50000)
    assert len([call for call in pi.calls if "--clear" in call]) == 2
    pi.look(50.0, 0x50005)
    assert len(pi.told()) == 4


def test_next_boot_begins_anew_and_remembers_what_is_stopped(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    pi.look(81.0, 0x50000)
    told = pi.told()
    monkeypatch.setattr(reading, "boot_id", lambda: "another")
    pi.clock = 20.0
    pi.look(75.5, 0x0)
    assert pi.engine() == ["stop shop-n8n-1"]
    pi.look(60.0, 0x10000)
    assert pi.engine()[-1] == "start shop-n8n-1"
    assert "The Pi has a problem: too little voltage" in pi.told()[len(told) :]


def test_message_that_cannot_be_handed_over_is_tried_again(pi: Pi) -> None:
    pi.put("pi-commerce-notify", "exit 1")
    pi.look(66.0)
    pi.put("pi-commerce-notify", f'echo "pi-commerce-notify $*" >> {pi.folder}/calls')
    pi.look(66.0)
    pi.look(66.0)
    assert pi.told() == ["The Pi is warm"]


def test_without_the_role_notify_the_journal_has_it(pi: Pi, capfd: pytest.CaptureFixture[str]) -> None:
    (pi.folder / "bin/pi-commerce-notify").unlink()
    pi.look(66.0)
    assert "warning: The Pi is warm: It is 66.0 degrees" in capfd.readouterr().out


def test_service_that_does_not_stop_is_told_of_once_and_tried_again(pi: Pi) -> None:
    pi.put("docker", f'echo "docker $*" >> {pi.folder}/calls; echo no engine >&2; exit 1')
    for _ in range(5):
        pi.look(81.0)
    assert pi.engine() == ["stop shop-n8n-1"] * 3
    assert pi.told().count("n8n cannot be stopped or started") == 1
    pi.look(60.0)
    assert "docker start shop-n8n-1" not in pi.calls
    assert "pi-commerce-notify --key thermal-stuck-n8n --clear" in pi.calls


def test_everything_comes_back_when_the_program_is_taken_away(pi: Pi) -> None:
    pi.look(81.0)
    assert pi.run("restore") == DONE
    assert pi.engine() == ["stop shop-n8n-1", "start shop-n8n-1"]


def test_fan_follows_its_curve_with_hysteresis_and_turns_at_its_most_when_blind(
    pi: Pi, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = pi.folder / "i2c-1"
    bus.touch()
    asked = []
    monkeypatch.setattr(fcntl, "ioctl", lambda handle, request, address: asked.append((request, address)))
    pi.configure(bus=str(bus), address=0x1A, curve=CURVE)
    speeds = []
    for celsius in (50.0, 55.0, 54.0, 60.0, 57.5, 56.9, 52.5, 51.9, 64.0, None):
        pi.look(celsius)
        speeds.append(bus.read_bytes()[0])
    assert speeds == [0, 40, 40, 70, 70, 40, 40, 0, 100, 100]
    assert set(asked) == {(fan.I2C_SLAVE, 0x1A)}
    assert pi.metric("pi_thermal_fan_percent") == "100"


def test_fan_that_is_not_there_is_told_of_once(pi: Pi) -> None:
    pi.configure(bus=str(pi.folder / "nothing"), address=0x1A, curve=CURVE)
    pi.look(50.0)
    pi.look(50.0)
    assert pi.told() == ["The fan cannot be reached"]


def test_service_ends_with_the_fan_at_its_most(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[int] = []
    monkeypatch.setattr(fan, "turn", lambda bus, address, percent: turned.append(percent))

    def stop(seconds: float) -> None:
        assert seconds == EVERY
        raise SystemExit(0)

    monkeypatch.setattr(time, "sleep", stop)
    pi.configure(bus="/dev/i2c-1", address=0x1A, curve=CURVE)
    with pytest.raises(SystemExit):
        pi.run("watch")
    assert turned == [0, 100]


def test_full_disk_makes_nobody_blind(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service goes on, and stops what has to be stopped."""
    pi.board(81.0, 0)
    looks, sleep = [], time.sleep

    def full(*words: object) -> None:
        raise OSError(28, "No space left on device", "state.json")

    def pause(seconds: float) -> None:
        if seconds != EVERY:
            # What waits for a command's end.
            sleep(seconds)
            return
        looks.append(seconds)
        pi.clock += EVERY
        if len(looks) == 2:
            raise SystemExit(0)

    monkeypatch.setattr(files, "write", full)
    monkeypatch.setattr(files, "write_json", full)
    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(SystemExit):
        pi.run("watch")
    assert pi.engine() == ["stop shop-n8n-1"]
    assert "The Pi is too hot" in pi.told()


def test_disk_of_the_figures_that_is_missing_is_no_matter(pi: Pi) -> None:
    pi.configure(metrics=str(pi.folder / "settings.json" / "thermal.prom"))
    pi.look(81.0)
    assert pi.engine() == ["stop shop-n8n-1"]


def test_looks_that_change_nothing_write_no_state(pi: Pi) -> None:
    pi.look(50.0)
    path = pi.folder / "state/state.json"
    inode = path.stat().st_ino
    pi.look(51.0)
    assert path.stat().st_ino == inode


def test_status_says_how_things_stand(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    assert pi.run("status") == DONE
    pi.look(81.0, 0x1)
    assert pi.run("status") == WRONG
    said = capsys.readouterr().out
    assert "temperature: 48.2 degrees Celsius" in said
    assert "too little voltage: yes" in said
    assert "n8n: was stopped, comes back below 70 degrees" in said


@pytest.mark.parametrize("content", ["{", "{}", '{"root": 1}'])
def test_settings_that_are_none_are_refused(pi: Pi, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (pi.folder / "settings.json").write_text(content)
    assert pi.run() == REFUSED
    assert "run site.yml" in capsys.readouterr().err


def test_only_root_may(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert pi.run() == REFUSED
