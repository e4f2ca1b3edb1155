"""What the programs on the Pi share: files, figures, commands, and how they end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import plays
import pytest
from pi_common import commands, files, metrics, programs
from pi_common.errors import Busy, PiError, Refused
from pi_common.metrics import Metric


@pytest.mark.parametrize("role", ["backup", "ddns", "notify", "power", "storage", "thermal", "updates"])
def test_program_runs_on_nothing_but_what_its_role_brings(tmp_path: Path, role: str) -> None:
    texts = (path.read_text() for part in ("tasks", "vars") for path in (plays.ROOT / "roles" / role / part).iterdir())
    brought = set(re.findall(r"'((?:files|plugins)/[\w/.]+)'", "".join(texts)))
    assert f"files/{role}" in brought
    for folder in brought:
        for entry in plays.filters("tree")["source_files"](folder):
            files.write(tmp_path / entry["path"], entry["content"])
    done = subprocess.run(
        [sys.executable, "-B", "-m", f"pi_{role}", "--help"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    # One takes no words: it finds no settings, and says so.
    assert "usage: pi-commerce-" in done.stdout or "run site.yml" in done.stderr, done.stderr


def failing(problem: Exception) -> Callable[[], int]:
    """A program that ends with this."""

    def action() -> int:
        raise problem

    return action


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (Busy("a backup is at work"), programs.BUSY, "a backup is at work; try again later"),
        (Refused("no such service"), programs.REFUSED, "refused: no such service"),
        (PiError("it did not start"), programs.WRONG, "failed: it did not start"),
        (OSError(28, "No space left on device", "/x"), programs.WRONG, "/x: No space left on device: is the disk full"),
    ],
)
def test_program_says_what_ended_it(
    problem: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert programs.ended(lambda: programs.DONE) == programs.DONE
    assert programs.ended(failing(problem)) == code
    assert said in capsys.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert programs.ended(lambda: programs.DONE) == programs.REFUSED


def test_file_is_replaced_whole_and_has_its_mode_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for mode in (0o600, 0o644):
            path = tmp_path / f"{mode:o}/file"
            files.write(path, "one", mode)
            files.write(path, "two", mode)
            assert path.read_text() == "two"
            assert path.stat().st_mode & 0o777 == mode
            # It may be the folder of the copies.
            assert path.parent.stat().st_mode & 0o777 == 0o700
            assert [other.name for other in path.parent.iterdir()] == ["file"]
    finally:
        os.umask(before)


def test_file_that_cannot_be_written_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="file") as error:
        files.write(tmp_path / "file", "text")
    assert error.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_figures_are_left_out_where_their_disk_is_missing_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a disk that is not mounted takes no file, not even from root."""
    (tmp_path / "disk").touch()
    metrics.publish(tmp_path / "disk/x.prom", "")
    metrics.publish(tmp_path / "disk/x.prom", "")
    assert capsys.readouterr().err.count("are not written") == 1
    metrics.publish(tmp_path / "there/x.prom", metrics.render([Metric("x", "Text.", [({"a": "b"}, None), ({}, 1.5)])]))
    assert (tmp_path / "there/x.prom").read_text() == '# HELP x Text.\n# TYPE x gauge\nx{a="b"} NaN\nx 1.5\n'


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("sh", "-c", "echo why >&2; exit 3"), "ended with 3: why"),
        (("sleep", "9"), "did not end within"),
        (("/nowhere/program",), "is not installed; run site.yml"),
        (("/dev/null",), "Permission denied"),
    ],
)
def test_command_that_fails_says_how(command: tuple[str, ...], said: str) -> None:
    with pytest.raises(commands.CommandFailed, match=said):
        commands.run(*command, seconds=0.3)
    assert commands.run("cat", text="in and out") == "in and out"
