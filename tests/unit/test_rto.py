"""The model of the recovery time: what decides, what it foretells, and what it learns from what came."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import recovery_time
import rto
from bench import pi

PI4 = rto.BOARDS["pi4-ssd"]
LAN = rto.LINES["LAN"]
ROOM = rto.Band(1000, 1000, 1000)


def bench(**changes: Any) -> dict[str, Any]:
    """What a machine was measured to do."""
    return {
        "board": "virtual-pi",
        "label": "measured on a virtual Pi",
        "network": {"fastest": 200.0},
        "disk": {"write_mb_s": 120.0},
        "restic": {"restore_mb_s": 90.0},
        "crypto": {"unzip_mb_s": 60.0},
        **changes,
    }


@pytest.mark.parametrize("slow", ["network", "disk", "engine"])
def test_the_slowest_decides_and_nothing_else(slow: str) -> None:
    fast = PI4._replace(network=ROOM, disk=ROOM, engine=ROOM)
    rate = rto.Band(20, 20, 20)
    board = fast._replace(**{slow: rate})  # type: ignore[arg-type]
    seconds = rto.predict(board, 10, 10_000)["fetch"]
    assert seconds == rto.Band(500, 500, 500)
    for other in {"network", "disk", "engine"} - {slow}:
        faster = board._replace(**{other: rto.Band(9000, 9000, 9000)})  # type: ignore[arg-type]
        assert rto.predict(faster, 10, 10_000)["fetch"] == seconds
        slower = board._replace(**{other: rto.Band(19, 19, 19)})  # type: ignore[arg-type]
        assert rto.predict(slower, 10, 10_000)["fetch"].likely > 500


def test_line_decides_where_it_is_the_slowest() -> None:
    at_50, at_100 = (rto.predict(PI4, 10, mbit)["fetch"].likely for mbit in (50, 100))
    assert at_50 == pytest.approx(2 * at_100)
    assert rto.predict(PI4, 10, 10_000)["fetch"] == rto.predict(PI4, 10, 20_000)["fetch"]


def test_known_points_are_met() -> None:
    """20 GB on a Pi 4: 4 to 9 minutes over the LAN, 55 at 50 Mbit/s."""
    lan = rto.predict(PI4, 20, LAN)["fetch"]
    assert 3 * 60 < lan.low < 4 * 60 < lan.likely < lan.high < 9 * 60
    assert rto.predict(PI4, 20, 50)["fetch"].likely == pytest.approx(55 * 60, rel=0.1)
    assert rto.engine_without_aes(4, 36).low == pytest.approx(40, rel=0.02)
    assert rto.engine_without_aes(4, 36).high == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize("board", rto.BOARDS.values(), ids=lambda board: board.name)
def test_every_phase_is_a_band_that_grows_with_the_data(board: rto.Board) -> None:
    before = None
    for size in (0, 1, 10, 50):
        found = rto.predict(board, size, 50)
        assert tuple(found) == rto.PHASES
        assert all(0 <= band.low <= band.likely <= band.high for band in found.values())
        whole = rto.total(found.values())
        assert before is None or whole.likely > before
        before = whole.likely
    assert board.label.startswith("modelled: ")


def test_provisioning_is_the_largest_part_unless_the_disk_was_set_up_before() -> None:
    found = rto.predict(PI4, 10, LAN)
    assert max(found, key=lambda phase: found[phase].likely) == "provision"
    spare = rto.predict(rto.BOARDS["pi4-spare"], 10, LAN)
    assert spare["flash"] == rto.Band(0, 0, 0)
    assert rto.total(spare.values()).likely < 3600


@pytest.mark.parametrize(("size", "mbit", "segments"), [(-1, 50, 0), (1, 0, 0), (1, -5, 0), (1, 50, -1)])
def test_what_cannot_be_is_refused(size: float, mbit: float, segments: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        rto.predict(PI4, size, mbit, segments)


def test_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        rto.predict(PI4._replace(disk=rto.Band(0, 5, 5)), 1, 50)


@pytest.mark.parametrize(("high", "likely", "said"), [(99, 50, "met"), (101, 50, "perhaps"), (200, 101, "missed")])
def test_verdict(high: float, likely: float, said: str) -> None:
    assert rto.verdict(rto.Band(1, likely, high), 100) == said


def test_measured_machine_counts_with_its_own_figures_and_a_pi_with_what_is_unknown() -> None:
    board = rto.measured(bench())
    assert (board.name, board.label) == ("virtual-pi", "measured on a virtual Pi")
    assert [rate.likely for rate in (board.network, board.disk, board.engine, board.unpack)] == [200, 120, 90, 60]
    assert board.seconds == PI4.seconds
    dark = rto.measured(bench(network={"fastest": None}, restic={"restore_mb_s": None}))
    assert (dark.network, dark.engine) == (PI4.network, PI4.engine)


def test_earlier_runs_tell_what_a_steady_phase_takes() -> None:
    def run(board: str, **actual: float) -> dict[str, Any]:
        return {"board": board, "phases": {phase: {"actual": seconds} for phase, seconds in actual.items()}}

    history = [run("virtual-pi", provision=seconds, fetch=9999) for seconds in (5000, 200, 300, 250, 260, 900)]
    history.append(run("pi4-ssd", provision=1))
    board = rto.measured(bench(), history)
    # The last five only; wide enough for all of them; data is computed and not remembered.
    assert board.seconds["provision"] == rto.Band(195, 260, 900)
    assert "fetch" not in board.seconds
    assert board.seconds["verify"] == PI4.seconds["verify"]


def test_recorded_run_stands_beside_its_prediction_and_teaches(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(bench()))
    entry = recovery_time.record(tmp_path, "rebuild", {"provision": 250.0, "fetch": 20.0}, 1, LAN)
    assert entry["board"] == "virtual-pi"
    assert list(entry["phases"]) == ["provision", "fetch"]
    likely = sum(phase["likely"] for phase in entry["phases"].values())
    assert entry["error"] == pytest.approx(270 / likely - 1, abs=0.001)
    again = recovery_time.record(tmp_path, "rebuild", {"provision": 250.0, "fetch": 20.0}, 1, LAN)
    assert abs(again["error"]) < abs(entry["error"])
    assert again["phases"]["provision"]["error"] == 0
    assert len(recovery_time.history(tmp_path)) == 2
    assert (tmp_path / "recovery_times.jsonl").stat().st_mode & 0o777 == 0o600
    assert "predicted 4 min" in "\n".join(recovery_time.report(again))


def test_without_a_measurement_it_is_a_modelled_pi(tmp_path: Path) -> None:
    entry = recovery_time.record(tmp_path, "drill", {"fetch": 60}, 1, 50)
    assert (entry["board"], entry["label"]) == ("pi4-ssd", PI4.label)
    assert recovery_time.board(tmp_path, "pi4-microsd").name == "pi4-microsd"
    with pytest.raises(ValueError, match="there are pi4-ssd"):
        recovery_time.board(tmp_path, "pi5")


@pytest.mark.parametrize(
    ("given", "said"),
    [('{"fetchh": 3}', "fetchh: is no phase; there are detect"), ("{}", "nothing: is no phase"), ("[", "error:")],
)
def test_command_names_what_makes_no_sense(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    assert recovery_time.main(["record", str(tmp_path), "drill", "--gb", "1"]) == 2
    assert said in capsys.readouterr().err
    assert recovery_time.history(tmp_path) == []


def test_command_records_and_shows_every_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"fetch": 100, "verify": 30}'))
    assert recovery_time.main(["record", str(tmp_path), "drill", "--gb", "10", "--mbit", "100"]) == 0
    assert "fetch        took 2 min" in capsys.readouterr().out
    assert recovery_time.main(["table", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for words in ("modelled: Pi 4", "data: owner's limit 30 min, our own 15 min", "50 GB 16 Mbit/s", "missed", "met"):
        assert words in printed
    assert "measured" not in printed


@pytest.mark.parametrize(
    ("model", "virtual", "root", "label", "board"),
    [
        (
            "Raspberry Pi 4 Model B Rev 1.4",
            "",
            "/",
            "measured on Raspberry Pi 4 Model B Rev 1.4",
            "raspberry-pi-4-model-b-rev-1-4",
        ),
        (
            "Raspberry Pi 4 Model B Rev 1.4",
            "",
            "/usr/share/virtual-pi/pi4-4gb",
            "measured on a virtual Pi (other hardware, aarch64)",
            "virtual-pi",
        ),
        ("Raspberry Pi 4 Model B Rev 1.4", "qemu", "/", "measured on a virtual Pi (qemu, aarch64)", "virtual-pi"),
        ("unknown", "", "/", "measured on a computer that is no Pi (aarch64)", "other-aarch64"),
    ],
)
def test_only_a_pi_is_called_one(model: str, virtual: str, root: str, label: str, board: str) -> None:
    found = {"machine": {"model": model, "virtual": virtual, "architecture": "aarch64"}}
    assert pi.label(found, root) == (label, board)


def test_every_rate_is_shown_and_none_is_made_up() -> None:
    measured = bench(
        network={"fastest": None, "places": {"registry": None}},
        throttled=["unknown", "unknown"],
        clock={"ahead_s": [-0.2, 1.0], "synchronised": "yes"},
        machine={"model": "unknown", "cores": 4, "mhz": None, "kernel": "6.12"},
        restic={"restore_mb_s": 90.0, "size_mb": 256, "version": "restic 0.18"},
    )
    text = "\n".join(pi.lines(measured))
    assert "from registry            unknown" in text
    assert "restic restore               90.0 MB/s" in text
    assert "throttle bits unknown before, unknown after" in text
