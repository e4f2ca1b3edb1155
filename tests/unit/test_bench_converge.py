"""The counting and comparing helpers of `make bench WHAT=converge`."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import plays
import pytest
from bench import converge

CALLBACK = plays.ROOT / "plugins/callback/remote_calls.py"


def tally(log: Path) -> Any:
    """The callback's counter; the callback itself lies on no import path."""
    spec = importlib.util.spec_from_file_location("remote_calls", CALLBACK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Tally(log)


def test_calls_are_put_down_to_the_task_that_made_them(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text('#!/bin/sh\necho "real ssh: $*"\n')
    (tmp_path / "bin/ssh").chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "REMOTE_CALLS_LOG": str(log)}
    counter = tally(log)
    for task, calls in (("one", 2), ("two", 0), ("three", 1)):
        counter.begin(task)
        for _ in range(calls):
            counted = [str(CALLBACK.parent / "counted/ssh"), "-p", "22", "pi"]
            done = subprocess.run(counted, env=environment, capture_output=True, text=True, check=True)
            assert done.stdout == "real ssh: -p 22 pi\n"
    assert counter.calls() == [("one", 2), ("two", 0), ("three", 1)]
    assert counter.totals() == {"tasks": 3, "remote_tasks": 2, "remote_calls": 3}


def test_every_program_that_ansible_starts_is_counted() -> None:
    for program in ("ssh", "sftp", "scp"):
        assert os.access(CALLBACK.parent / "counted" / program, os.X_OK), program


def test_a_play_without_connections_counts_tasks_and_no_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "report.json"
    monkeypatch.setenv("ANSIBLE_CALLBACKS_ENABLED", "remote_calls")
    monkeypatch.setenv("REMOTE_CALLS_REPORT", str(report))
    status, output = plays.play(tmp_path, [{"debug": {"msg": "one"}}, {"debug": {"msg": "two"}}])
    assert status == 0, output
    assert "REMOTE CALLS" in output
    assert json.loads(report.read_text()) == {"tasks": 2, "remote_tasks": 0, "remote_calls": 0}


def test_stock_settings_keep_where_things_lie_and_nothing_else(tmp_path: Path) -> None:
    ours = "[defaults]\n" + "".join(f"{name} = here/{name}\n" for name in converge.PATHS)
    ours += "gathering = explicit\n[ssh_connection]\npipelining = true\n"
    stock = configparser.ConfigParser()
    stock.read_string(converge.stock_settings(ours, tmp_path, tmp_path / "callbacks", tmp_path / "first"))
    assert set(stock["defaults"]) == set(converge.PATHS)
    assert stock["defaults"]["roles_path"] == f"{tmp_path}/here/roles_path"
    assert stock["defaults"]["callback_plugins"] == f"{tmp_path}/callbacks"
    assert stock["defaults"]["action_plugins"] == f"{tmp_path}/first:{tmp_path}/here/action_plugins"
    assert stock.sections() == ["defaults", "inventory"]


def test_ratios_are_told_against_the_first_flavour() -> None:
    slow = [converge.Measured(40.0, 9.0, 80, 30, 200, 4096), converge.Measured(50.0, 9.5, 80, 30, 200, 4096)]
    fast = [converge.Measured(10.0, 3.0, 70, 8, 8, 1024)]
    _headings, first, second = converge.rows({"stock": slow, "project": fast})
    assert first == ("stock", "40.0", "45.0", "1.00", "9.0", "80", "30", "200", "4")
    assert second == ("project", "10.0", "10.0", "0.25", "3.0", "70", "8", "8", "1")
