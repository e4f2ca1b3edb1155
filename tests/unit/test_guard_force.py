"""What was put back is put into force, and the way in is open whatever else happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from pi_guard import connection, force
from pi_guard import guard as module
from pi_guard.guard import Guard

NOTHING_RAN = {force.WIREGUARD_UNIT: False, force.SSH_SOCKET: False}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the programs; nothing of it happens."""
    calls: list[str] = []

    def run(self: force.Force, *words: str) -> bool:
        calls.append(" ".join(words))
        return True

    monkeypatch.setattr(force.Force, "run", run)
    monkeypatch.setattr(force, "active", lambda unit: unit == "ssh.service")
    return calls


def test_firewall_that_is_not_back_is_opened_without_the_disk(asked: list[str]) -> None:
    force.put_in_force(["/etc/ufw", "/etc/default/ufw"], NOTHING_RAN, missing=["/etc/default/ufw"])
    assert asked == ["/lib/ufw/ufw-init force-stop"]


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


def test_interface_goes_though_its_file_is_gone(asked: list[str]) -> None:
    """The unit would ask the file how to take it away; its routes may be what keeps everybody out."""
    force.put_in_force(["/etc/wireguard"], NOTHING_RAN)
    unit = "wg-quick@wg0.service"
    assert asked == ["ip link delete dev wg0", f"systemctl stop {unit}", f"systemctl reset-failed {unit}"]


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
    tmp_path: Path, jails: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch, client: str, between: str
) -> None:
    before = {name: set(ignored) for name, ignored in jails.items()}
    for name in ("start_timer", "stop_timer"):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(connection, "prove_newer", lambda at: None)
    monkeypatch.setattr(connection, "client", lambda: client)
    guard = Guard(tmp_path / "guard")
    guard.arm([str(tmp_path / "etc/ssh")], 60)
    if between:
        guard.mark.unlink()
    guard.arm([str(tmp_path / "etc/ssh")], 60)
    assert all(client in ignored for ignored in jails.values())
    guard.disarm()
    assert jails == before


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
