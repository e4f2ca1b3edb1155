"""What is heard of a command in a container where the engine loses some of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import virtual_pi


class Engine:
    """Runs a command here; what the first `losses` have said is lost."""

    def __init__(self, losses: int) -> None:
        self.losses, self.asked = losses, 0

    def exec_run(self, command: list[str], demux: bool) -> tuple[int, tuple[bytes | None, bytes | None]]:
        assert demux
        self.asked += 1
        done = subprocess.run(command, capture_output=True, check=False)
        lost = self.asked <= self.losses
        return done.returncode, (None if lost else done.stdout, None if lost else done.stderr)


def heard(engine: Any, *command: str) -> str:
    return virtual_pi.inside(engine, *command)


def test_command_whose_output_was_lost_is_asked_again() -> None:
    for losses, printed in ((0, "{}"), (1, "a\nb\n"), (2, "")):
        engine = Engine(losses)
        assert heard(engine, "printf", "%s", printed) == printed
        assert engine.asked == losses + 1


def test_engine_that_is_never_heard_is_not_taken_for_silence() -> None:
    engine = Engine(99)
    with pytest.raises(virtual_pi.VirtualPiError, match="the engine has lost what it said 3 times"):
        heard(engine, "echo", "{}")
    assert engine.asked == 3


def test_command_that_fails_is_told_with_its_words_and_not_repeated() -> None:
    engine = Engine(0)
    with pytest.raises(virtual_pi.VirtualPiError, match=r"cat /nowhere: exit code 1: .*No such file"):
        heard(engine, "cat", "/nowhere")
    assert engine.asked == 1


def test_host_key_that_was_not_heard_is_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one would have every login refused."""
    said = [b"", b"ssh-ed25519 AAAAkey root@shop"]
    container: Any = SimpleNamespace(name="pi", exec_run=lambda command: (0, said.pop(0)))
    monkeypatch.setattr(virtual_pi, "port_answers", lambda host, port: True)
    settings = virtual_pi.Settings(tmp_path, "unit", "192.0.2", "trixie", "amd64", "4g")
    virtual_pi.wait_for_ssh(container, settings)
    assert (tmp_path / "known_hosts").read_text() == f"{settings.address} ssh-ed25519 AAAAkey\n"
