"""Network settings come back by themselves, and only a new connection makes them stay."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pi_guard import connection, force, saved
from pi_guard import guard as module
from pi_guard.errors import Refused
from pi_guard.guard import Guard

NOW = 1000.0
NOTHING_RAN = {force.WIREGUARD_UNIT: False, force.SSH_SOCKET: False}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of systemd and of the programs; nothing of it happens."""
    calls: list[str] = []
    monkeypatch.setattr(module, "start_timer", lambda seconds: calls.append(f"timer {seconds}"))
    monkeypatch.setattr(module, "stop_timer", lambda: calls.append("no timer"))
    monkeypatch.setattr(force, "active", lambda unit: unit == "ssh.service")

    def run(self: force.Force, *words: str) -> bool:
        calls.append(" ".join(words))
        return True

    monkeypatch.setattr(force.Force, "run", run)
    monkeypatch.setattr(connection, "now", lambda: NOW)
    return calls


@pytest.fixture
def guard(tmp_path: Path, asked: list[str]) -> Guard:
    """A guard with a folder of its own."""
    return Guard(tmp_path / "guard")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with settings."""
    folder = tmp_path / "etc/ssh"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "conf.d/a.conf").write_text("Port 22\n")
    (folder / "conf.d/a.conf").chmod(0o600)
    (folder / "link").symlink_to("conf.d")
    return folder


def break_it(tree: Path) -> None:
    """What a change may do to the settings."""
    (tree / "conf.d/a.conf").write_text("Port 2222\n")
    (tree / "conf.d/a.conf").chmod(0o644)
    (tree / "conf.d/b.conf").write_text("nonsense\n")
    (tree / "link").unlink()


def whole(tree: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of everything."""
    return {
        str(path.relative_to(tree)): (path.lstat().st_mode, path.read_text() if path.is_file() else "")
        for path in tree.rglob("*")
    }


def test_everything_comes_back_as_it_was(guard: Guard, tree: Path, asked: list[str]) -> None:
    before = whole(tree)
    guard.arm([str(tree)], 60)
    break_it(tree)
    report = guard.restore()
    assert whole(tree) == before
    assert report["put_back"] == [str(tree)]
    assert "within 60 s" in report["why"]
    assert guard.report() == report
    assert guard.armed() == {}
    assert asked[0] == "timer 60"
    assert asked[-1] == "no timer"
    assert guard.restore() == {}


def test_what_was_not_there_is_gone_again(guard: Guard, tmp_path: Path) -> None:
    new = tmp_path / "etc/wireguard"
    guard.arm([str(new)], 60)
    new.mkdir(parents=True)
    (new / "wg0.conf").write_text("x")
    guard.restore()
    assert not new.exists()


def test_older_copy_is_the_proven_one(guard: Guard, tree: Path) -> None:
    """A run was cut off before it had proven its change; the next one changes more and is kept out."""
    before = whole(tree)
    guard.arm([str(tree)], 60)
    break_it(tree)
    guard.arm([str(tree), "/etc/nothing-here"], 30)
    (tree / "conf.d/a.conf").write_text("Port 3333\n")
    guard.restore()
    assert whole(tree) == before


def test_what_was_proven_last_is_put_back_and_not_what_somebody_left_unread(
    guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "prove_newer", lambda at: None)
    guard.arm([str(tree)], 60)
    guard.disarm()
    before = whole(tree)
    (tree / "conf.d/0-unread.conf").write_text("AllowUsers nobody\n")
    guard.arm([str(tree)], 60)
    assert guard.restore()["put_back"] == [str(tree)]
    assert whole(tree) == before
    assert b"AllowUsers nobody" in next((guard.folder / "replaced").iterdir()).read_bytes()


def test_unchanged_settings_are_not_touched(guard: Guard, tree: Path) -> None:
    inode = (tree / "conf.d/a.conf").stat().st_ino
    guard.arm([str(tree)], 60)
    assert guard.restore()["put_back"] == []
    assert (tree / "conf.d/a.conf").stat().st_ino == inode


def test_restoring_that_was_cut_off_is_begun_anew(guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = whole(tree)
    guard.arm([str(tree)], 60)
    break_it(tree)
    with monkeypatch.context() as broken:
        broken.setattr(saved, "put_back", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt("power cut")))
        with pytest.raises(KeyboardInterrupt):
            guard.restore()
    assert guard.armed()
    guard.restore()
    assert whole(tree) == before


def test_copy_of_what_was_there_finds_no_room_and_everything_comes_back(
    guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whole(tree)
    guard.arm([str(tree)], 60)
    break_it(tree)
    keep = Guard._keep

    def full(self: Guard, name: str, content: bytes) -> None:
        if not name.startswith("saved/"):
            raise OSError(28, "No space left on device")
        keep(self, name, content)

    monkeypatch.setattr(Guard, "_keep", full)
    assert guard.restore()["put_back"] == [str(tree)]
    assert whole(tree) == before
    assert guard.armed() == {}


def test_room_is_kept_for_putting_back_and_free_when_it_begins(
    guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = guard.folder / "saved/room"
    guard.arm([str(tree)], 60)
    assert room.stat().st_blocks * 512 >= module.ROOM
    break_it(tree)
    found: list[bool] = []
    monkeypatch.setattr(saved, "put_back", lambda *_: found.append(room.exists()))
    guard.restore()
    assert found == [False]


def test_what_cannot_be_put_back_keeps_nothing_else_from_it_and_is_tried_again(
    guard: Guard, tree: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tree.parent / "other"
    other.mkdir()
    before = whole(tree)
    guard.arm([str(other), str(tree)], 60)
    break_it(tree)
    (other / "new").write_text("x")
    put_back = saved.put_back

    def full(path: Path, packed: bytes) -> None:
        if path == other:
            raise OSError(28, "No space left on device")
        put_back(path, packed)

    with monkeypatch.context() as broken:
        broken.setattr(saved, "put_back", full)
        asked.clear()
        with pytest.raises(Refused, match="No space left"):
            guard.restore()
    assert whole(tree) == before
    assert guard.armed()
    assert "no timer" not in asked
    assert list(guard.report()["not_put_back"]) == [str(other)]
    assert guard.restore()["put_back"] == [str(other)]
    assert not (other / "new").exists()
    assert guard.armed() == {}


def test_folder_that_cannot_be_written_any_more_is_still_locked(guard: Guard, tree: Path) -> None:
    """A disk that has become read-only: the lock is there, and is not asked to be written."""
    guard.arm([str(tree)], 60)
    (guard.folder / "lock").chmod(0o400)
    with guard.alone():
        descriptors = [Path(f"/proc/self/fd/{name.name}") for name in Path("/proc/self/fd").iterdir()]
        lock = next(one for one in descriptors if one.exists() and one.samefile(guard.folder / "lock"))
        flags = Path(f"/proc/self/fdinfo/{lock.name}").read_text().split("flags:")[1].split()[0]
    assert int(flags, 8) & 0o3 == 0


def test_after_a_restart_files_come_back_and_nothing_is_asked_of_systemd(
    guard: Guard, tree: Path, asked: list[str]
) -> None:
    guard.arm([str(tree)], 60)
    break_it(tree)
    report = guard.restore(booting=True)
    assert "started again" in report["why"]
    assert report["put_back"] == [str(tree)]
    assert asked == ["timer 60", "no timer"]


def test_disarmed_guard_leaves_things_as_they_are(guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "prove_newer", lambda at: None)
    guard.arm([str(tree)], 60)
    break_it(tree)
    changed = whole(tree)
    guard.disarm()
    assert guard.restore() == {}
    assert whole(tree) == changed
    with pytest.raises(Refused, match="not armed"):
        guard.disarm()


def test_connection_that_proves_nothing_does_not_disarm(
    guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(at: float) -> None:
        raise Refused(f"older than {at}")

    monkeypatch.setattr(connection, "prove_newer", refuse)
    guard.arm([str(tree)], 60)
    with pytest.raises(Refused, match=f"older than {NOW}"):
        guard.disarm()
    assert guard.armed()


def test_without_a_timer_nothing_is_armed(guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise subprocess.CalledProcessError(1, "systemd-run", "no bus")

    monkeypatch.setattr(module, "start_timer", fail)
    with pytest.raises(Refused, match="no bus"):
        guard.arm([str(tree)], 60)
    assert guard.armed() == {}


def test_a_proven_change_is_forgotten_before_its_timer_goes(
    guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, a mark without a timer would wait for the next start, weeks later."""
    monkeypatch.setattr(connection, "prove_newer", lambda at: None)
    guard.arm([str(tree)], 60)
    armed: list[bool] = []
    monkeypatch.setattr(module, "stop_timer", lambda: armed.append(bool(guard.armed())))
    guard.disarm()
    guard.arm([str(tree)], 60)
    guard.restore()
    assert armed == [False, False]


def test_keys_are_not_kept_for_later(guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was taken away stays away, and nobody reads a copy of the others."""
    monkeypatch.setattr(connection, "prove_newer", lambda at: None)
    keys = tmp_path / "home/pi/.ssh"
    keys.mkdir(parents=True)
    (keys / "id_ed25519").write_text("private")
    guard.arm([str(keys)], 60)
    guard.disarm()
    assert [path for path in guard.folder.rglob("*.tar") if b"private" in path.read_bytes()] == []


@pytest.mark.parametrize("path", ["relative", "/", "/etc", "etc/ssh"])
def test_a_folder_of_the_system_is_not_taken(guard: Guard, path: str) -> None:
    with pytest.raises(Refused, match="two folders deep"):
        guard.arm([path], 60)


def test_copies_are_for_root_alone(guard: Guard, tree: Path) -> None:
    guard.arm([str(tree)], 60)
    assert {path.stat().st_mode & 0o077 for path in [guard.folder, *guard.folder.rglob("*.tar"), guard.mark]} == {0}


def test_report_of_an_earlier_night_is_forgotten_when_armed(guard: Guard, tree: Path) -> None:
    guard.arm([str(tree)], 60)
    guard.restore("first")
    assert json.loads(guard.report_file.read_text())["why"] == "first"
    guard.arm([str(tree)], 60)
    assert guard.report() == {}


def test_who_listened_for_ssh_is_known_from_before(guard: Guard, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(force, "active", lambda unit: unit == force.SSH_SOCKET)
    guard.arm([str(tree)], 60)
    assert guard.armed()["ran"] == {force.WIREGUARD_UNIT: False, force.SSH_SOCKET: True}


def test_packing_is_the_same_for_the_same_content(tree: Path) -> None:
    before = saved.pack(tree)
    (tree / "conf.d/a.conf").touch()
    assert saved.pack(tree) == before
    (tree / "conf.d/a.conf").chmod(0o640)
    assert saved.pack(tree) != before


def test_state_file_is_whole_or_not_there(guard: Guard, tree: Path) -> None:
    guard.arm([str(tree)], 60)
    state: dict[str, Any] = json.loads(guard.mark.read_text())
    assert (state["paths"], state["seconds"], state["at"]) == ([str(tree)], 60, NOW)
    assert not list(guard.folder.rglob("*.new"))
