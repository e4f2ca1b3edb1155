"""Network settings come back by themselves, and only a new connection makes them stay."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
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


def test_firewall_that_is_not_back_is_opened_without_the_disk(asked: list[str]) -> None:
    force.put_in_force(["/etc/ufw", "/etc/default/ufw"], NOTHING_RAN, missing=["/etc/default/ufw"])
    assert asked == ["/lib/ufw/ufw-init force-stop"]


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


Processes = Callable[..., None]


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    """Makes processes as /proc shows them, each the child of the one before."""

    def make(*rows: tuple[str, float]) -> None:
        for pid, (name, started) in enumerate(rows, start=1):
            fields = ["0"] * 50
            fields[0], fields[1], fields[19] = "S", str(pid - 1), str(int(started * connection.TICKS))
            (tmp_path / str(pid)).mkdir()
            (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")

    return make


@pytest.mark.parametrize("server", ["sshd", "sshd-session"])
def test_connection_made_afterwards_is_proof(tmp_path: Path, processes: Processes, server: str) -> None:
    processes(("systemd", 0), ("sshd", 5), (server, 200), ("sudo", 201), ("python3", 202))
    connection.prove_newer(150, tmp_path, 5)
    with pytest.raises(Refused, match="older than the change"):
        connection.prove_newer(201.5, tmp_path, 5)


def test_who_did_not_come_by_ssh_proves_nothing(tmp_path: Path, processes: Processes) -> None:
    processes(("systemd", 0), ("cron", 5), ("a sshd) (x", 200), ("python3", 202))
    with pytest.raises(Refused, match="did not come by SSH"):
        connection.prove_newer(150, tmp_path, 4)


def test_ssh_runs_again_whatever_was_changed(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(force, "active", lambda unit: False)
    force.put_in_force(["/etc/ufw"], NOTHING_RAN)
    assert "systemctl start ssh.service" in asked


def test_server_that_does_not_reload_is_restarted(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: force.Force, *words: str) -> bool:
        asked.append(" ".join(words))
        return "reload" not in words

    monkeypatch.setattr(force.Force, "run", run)
    force.put_in_force(["/etc/ssh"], NOTHING_RAN)
    assert asked[-2:] == ["systemctl reload ssh.service", "systemctl restart ssh.service"]


def test_what_belongs_to_a_path_reads_it_again(asked: list[str]) -> None:
    force.put_in_force(["/etc/ssh/sshd_config.d", "/etc/wireguard"], {**NOTHING_RAN, force.WIREGUARD_UNIT: True})
    assert asked == [
        "systemctl restart wg-quick@wg0.service",
        "systemctl daemon-reload",
        "sshd -t",
        "systemctl reload ssh.service",
    ]


@pytest.fixture
def units(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The units that run, as systemd starts and stops them; a socket does not start beside its service."""
    running: set[str] = set()

    def run(self: force.Force, *words: str) -> bool:
        asked.append(" ".join(words))
        verb, names = words[1], words[2:]
        if verb == "stop":
            running.difference_update(names)
        elif verb == "start":
            if names == (force.SSH_SOCKET,) and ("ssh.service" in running or "no room" in running):
                return False
            running.update(names)
        return True

    monkeypatch.setattr(force.Force, "run", run)
    monkeypatch.setattr(force, "active", lambda unit: unit in running)
    return running


def test_socket_listens_again_though_somebody_has_started_its_service(units: set[str]) -> None:
    units |= {force.SSH_SOCKET, "ssh.service"}
    force.put_in_force(["/etc/ssh/sshd_config.d"], {**NOTHING_RAN, force.SSH_SOCKET: True})
    assert units == {force.SSH_SOCKET}


def test_socket_that_could_not_listen_is_there_again(units: set[str]) -> None:
    force.put_in_force(["/etc/ufw"], {**NOTHING_RAN, force.SSH_SOCKET: True})
    assert units == {force.SSH_SOCKET}


def test_where_no_socket_starts_the_server_itself_does(units: set[str]) -> None:
    units.add("no room")
    force.put_in_force(["/etc/ssh"], {**NOTHING_RAN, force.SSH_SOCKET: True})
    assert "ssh.service" in units


def test_socket_of_a_machine_whose_ssh_was_not_touched_is_left_alone(units: set[str], asked: list[str]) -> None:
    units |= {force.SSH_SOCKET, "ssh.service"}
    force.put_in_force(["/etc/wireguard"], {**NOTHING_RAN, force.SSH_SOCKET: True})
    assert [command for command in asked if "ssh" in command] == []


def test_who_listened_for_ssh_is_known_from_before(guard: Guard, tree: Path, units: set[str]) -> None:
    units.add(force.SSH_SOCKET)
    guard.arm([str(tree)], 60)
    assert guard.armed()["ran"] == {**NOTHING_RAN, force.SSH_SOCKET: True}


def test_controller_that_was_banned_is_let_in(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(force, "active", lambda unit: unit in ("ssh.service", "fail2ban.service"))
    force.put_in_force(["/etc/ssh"], NOTHING_RAN)
    assert "fail2ban-client unban --all" in asked


@pytest.fixture
def jails(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """fail2ban's jails with whom they overlook."""
    found: dict[str, set[str]] = {"pi-commerce-login": {"127.0.0.0/8"}, "sshd": {"127.0.0.0/8", "192.168.7.10"}}

    def run(self: force.Force, *words: str) -> bool:
        said = ""
        if words[1:] == ("status",):
            said = f"Status\n|- Number of jail:\t2\n`- Jail list:\t{', '.join(found)}"
        elif words[1] == "get":
            said = "These IP addresses/networks are ignored:\n|- " + "\n|- ".join(sorted(found[words[2]]))
        elif words[3] == "addignoreip":
            found[words[2]].add(words[4])
        else:
            found[words[2]].remove(words[4])
        self.steps.append({"command": "", "outcome": "done", "said": said})
        return True

    monkeypatch.setattr(force.Force, "run", run)
    monkeypatch.setattr(force, "active", lambda unit: unit == "fail2ban.service")
    return found


def test_controller_that_knocks_in_vain_is_not_banned_for_it(jails: dict[str, set[str]]) -> None:
    assert force.spare("192.168.7.9") == [("pi-commerce-login", "192.168.7.9"), ("sshd", "192.168.7.9")]
    assert all("192.168.7.9" in ignored for ignored in jails.values())
    assert force.spare("") == []


@pytest.mark.parametrize("between", ["", "restored"])
@pytest.mark.parametrize("client", ["192.168.7.9", "192.168.7.10"])
def test_once_it_has_proven_its_change_it_is_overlooked_no_more_than_before(
    guard: Guard, tree: Path, jails: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch, client: str, between: str
) -> None:
    before = {name: set(ignored) for name, ignored in jails.items()}
    monkeypatch.setattr(connection, "prove_newer", lambda at: None)
    monkeypatch.setattr(connection, "client", lambda: client)
    guard.arm([str(tree)], 60)
    if between:
        guard.mark.unlink()
    guard.arm([str(tree)], 60)
    assert all(client in ignored for ignored in jails.values())
    guard.disarm()
    assert jails == before


def test_controllers_address_is_found_behind_sudo(tmp_path: Path, processes: Processes) -> None:
    processes(("systemd", 0), ("sshd", 5), ("sh", 200), ("sudo", 201), ("python3", 202))
    for pid, environment in ((3, b"A=b\0SSH_CONNECTION=192.168.7.9 5 192.168.7.10 22\0"), (4, b""), (5, b"A=b\0")):
        (tmp_path / str(pid) / "environ").write_bytes(environment)
    assert connection.client(tmp_path, 5) == "192.168.7.9"
    assert connection.client(tmp_path, 2) == ""


def test_firewall_that_cannot_be_loaded_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def run(self: force.Force, *words: str) -> bool:
        steps.append(" ".join(words))
        return words != ("ufw", "reload")

    monkeypatch.setattr(force.Force, "run", run)
    monkeypatch.setattr(force, "enabled", lambda path: True)
    force.Force().firewall(whole=True)
    assert steps[-2:] == ["ufw reload", "ufw --force disable"]


def test_firewall_that_cannot_even_be_switched_off_is_opened(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: force.Force, *words: str) -> bool:
        asked.append(" ".join(words))
        return False

    monkeypatch.setattr(force.Force, "run", fail)
    force.Force().firewall(whole=True)
    assert asked[-2:] == ["ufw --force disable", "/lib/ufw/ufw-init force-stop"]


def test_commands_that_fail_or_are_missing_are_told_and_stop_nothing() -> None:
    made = force.Force()
    assert not made.run("sh", "-c", "echo why; exit 3")
    assert not made.run("pi-commerce-no-such-program")
    assert made.run("printf", r"\377")
    assert [step["outcome"] for step in made.steps] == ["exit code 3", "failed", "done"]
    assert made.steps[0]["said"] == "why"


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
