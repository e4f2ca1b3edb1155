"""Which connection proves a change, and whose it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pi_guard import connection
from pi_guard.errors import Refused

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


def test_controllers_address_is_found_behind_sudo(tmp_path: Path, processes: Processes) -> None:
    processes(("systemd", 0), ("sshd", 5), ("sh", 200), ("sudo", 201), ("python3", 202))
    for pid, environment in ((3, b"A=b\0SSH_CONNECTION=192.168.7.9 5 192.168.7.10 22\0"), (4, b""), (5, b"A=b\0")):
        (tmp_path / str(pid) / "environ").write_bytes(environment)
    assert connection.client(tmp_path, 5) == "192.168.7.9"
    assert connection.client(tmp_path, 2) == ""
