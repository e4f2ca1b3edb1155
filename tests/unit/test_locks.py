"""The one lock library, and the lock of the whole machine that backups share and updates hold alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import plays
import pytest
from pi_backup import __main__ as backup
from pi_backup import alerts, jobs, plan, state
from pi_common import locks


class BusyError(Exception):
    """Somebody is at it."""


HOLD = """
import pathlib, sys, time
from pi_common import locks
with locks.held(pathlib.Path(sys.argv[1]), RuntimeError(), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def somebody(path: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, `shared` or `alone`."""
    command = [sys.executable, "-c", HOLD, str(path), how]
    environment = {"PYTHONPATH": str(plays.ROOT / "files/common")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def taken(path: Path, seconds: float = 0, *, shared: bool = False) -> bool:
    """Whether the lock can be had."""
    try:
        with locks.held(path, BusyError(), seconds, shared=shared):
            return True
    except BusyError:
        return False


@pytest.mark.parametrize(("how", "alone", "shared"), [("alone", False, False), ("shared", False, True)])
def test_who_gets_in_beside_whom(tmp_path: Path, how: str, alone: bool, shared: bool) -> None:
    path = tmp_path / "new/lock"
    with somebody(path, how):
        assert taken(path) is alone
        assert taken(path, shared=True) is shared
    assert taken(path)


def test_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with somebody(tmp_path / "lock", "alone") as process:
        process.kill()
        assert taken(tmp_path / "lock", 10)


def test_wait_ends(tmp_path: Path) -> None:
    with somebody(tmp_path / "lock", "alone"):
        begun = time.monotonic()
        assert not taken(tmp_path / "lock", 0.3)
        assert 0.3 <= time.monotonic() - begun < 5


def test_what_fails_inside_is_not_taken_for_busy(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locks.held(tmp_path / "lock", BusyError()):
        raise ZeroDivisionError
    assert taken(tmp_path / "lock")


@pytest.mark.parametrize("verb", ["ship", "nightly", "drill", "restore", "undo", "discard"])
def test_nothing_moves_data_while_the_machine_is_updated(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "at-work.lock"
    monkeypatch.setattr(locks, "AT_WORK", lock)
    monkeypatch.setattr(backup, "LOCK_SECONDS", 0)
    monkeypatch.setattr(plan, "load", lambda _path: None)
    monkeypatch.setattr(alerts, "tell", lambda _plan: None)
    skipped: list[str] = []
    monkeypatch.setattr(state, "skipped", lambda _plan, job: skipped.append(job))
    words = [verb, "name"] if verb in ("undo", "discard") else [verb]
    with somebody(lock, "alone"):
        assert backup.main(words) == backup.BUSY
    assert "is being updated" in capsys.readouterr().err
    assert skipped == ([verb] if verb in ("ship", "nightly") else [])


def test_backups_run_beside_each_other_and_no_update_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "at-work.lock"
    monkeypatch.setattr(locks, "AT_WORK", lock)
    monkeypatch.setattr(plan, "load", lambda _path: None)
    monkeypatch.setattr(alerts, "tell", lambda _plan: None)
    seen: list[tuple[bool, bool]] = []

    def ship(_plan: None, _wait: float) -> list[str]:
        seen.append((taken(lock), taken(lock, shared=True)))
        return []

    monkeypatch.setattr(jobs, "ship", ship)
    with somebody(lock, "shared"):
        assert backup.main(["ship"]) == backup.DONE
    assert seen == [(False, True)]
