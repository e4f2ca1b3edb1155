"""What the role ssh, and the preflight's look at its port, make of what they are given; played without a machine."""

from __future__ import annotations

import json
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plays
import pytest
import yaml

SSH, PREFLIGHT = plays.ROOT / "roles/ssh", plays.ROOT / "roles/preflight"
# What a login says of its home may be anything.
HOME = "/home/$(id) 'b; touch x #"
LIVE = {"ports": [2222], "passwords": False, "socket": True, "client": "", "home": HOME, "problem": ""}


def tasks(path: Path) -> dict[str, dict[str, Any]]:
    """The tasks of a file by their names."""
    return {task["name"]: task for task in yaml.safe_load(path.read_text())}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the role makes of a port that was typed (`-e ssh_port=2222`), which is text, where it listens already."""
    folder = tmp_path_factory.mktemp("ssh")
    expressions = {
        "ports": "_ssh_ports",
        "both": tasks(SSH / "tasks/port.yml")["Listen on both ports"]["vars"]["_ssh_ports"].strip("{} "),
        "moves": tasks(SSH / "tasks/main.yml")["Move to another port"]["when"].partition(" and ")[0],
        "arm": "_ssh_arm",
        "reload": "_ssh_reload",
    }
    listed: list[dict[str, Any]] = [
        {"ansible.builtin.include_vars": str(SSH / "vars/main.yml")},
        {
            "ansible.builtin.copy": {"content": "{{ shown | to_json }}", "dest": str(folder / "shown.json")},
            "vars": {"shown": {name: f"{{{{ {text} }}}}" for name, text in expressions.items()}},
        },
    ]
    variables = {"guard_seconds": 120, "ansible_facts": {"pi": {"network": {"ssh": LIVE}}}}
    status, output = plays.play(folder, listed, "-e", json.dumps(variables), "-e", "ssh_port=2222")
    assert status == 0, output
    found: dict[str, Any] = json.loads((folder / "shown.json").read_text())
    return found


def test_port_that_was_typed_is_a_number(shown: dict[str, Any]) -> None:
    """One that never equals the port listened on would move at every run."""
    assert (shown["ports"], shown["both"], shown["moves"]) == ([2222], [2222, 2222], False)


def test_home_that_a_login_names_is_a_word_and_no_command(shown: dict[str, Any]) -> None:
    assert shlex.split(shown["arm"])[2:] == [
        "/etc/ssh/sshd_config.d", "/etc/systemd/system/ssh.socket.d", f"{HOME}/.ssh", "--seconds", "120",
    ]  # fmt: skip


def test_socket_is_stopped_before_its_service_and_started_last(shown: dict[str, Any]) -> None:
    """Somebody who knocks in between would start the service, and beside that the socket does not start."""
    assert [" ".join(part.split()) for part in shown["reload"].split("&&")] == [
        "systemctl daemon-reload",
        "systemctl stop ssh.socket ssh.service",
        "systemctl start ssh.socket",
    ]


@pytest.mark.parametrize(
    ("line", "refused"), [("passwordauthentication no", False), ("passwordauthentication yes", True)]
)
def test_passwords_that_another_file_lets_in_are_told(tmp_path: Path, line: str, refused: bool) -> None:
    task = tasks(SSH / "tasks/main.yml")["Refuse a server that takes passwords all the same"]
    said = {"__ssh_now": {"stdout_lines": ["port 22", line]}}
    given = {"ansible.builtin.include_vars": str(SSH / "vars/main.yml")}
    status, output = plays.play(tmp_path, [given, task], "-e", json.dumps(said))
    assert (status != 0) == refused, output
    assert ("Passwords still open the SSH server" in output) == refused


@pytest.fixture
def port() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this computer that answers with what is in the list."""
    answer: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.sendall(answer[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], answer
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("banner", "old", "check"), [(b"SSH-2.0-OpenSSH_10.0\r\n", False, ()), (b"HTTP/1.1 400 \r\n", True, ("--check",))]
)
def test_new_port_is_taken_where_ssh_answers_there(
    tmp_path: Path, port: tuple[int, list[bytes]], banner: bytes, old: bool, check: tuple[str, ...]
) -> None:
    number, answer = port
    answer.append(banner)
    look = tasks(PREFLIGHT / "tasks/main.yml")
    listed: list[dict[str, Any]] = [
        look["Look whether SSH answers on its port already"],
        look["Come in by the old port once more"],
        {"ansible.builtin.debug": {"msg": "by port {{ ansible_port | default('new') }}."}},
    ]
    variables = ("-e", f"ssh_port={number}", "-e", "ssh_port_before=22", "-e", "ansible_host=127.0.0.1")
    status, output = plays.play(tmp_path, listed, *variables, *check)
    assert status == 0, output
    assert f"by port {'22' if old else 'new'}." in output, output
