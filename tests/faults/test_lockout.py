"""Whatever is wrong with the network's settings, the machine can be reached again by itself, and the run says why."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import lockout
import machine
import pytest
from lockout import FAULTS, Fault

FULL = bool(os.environ.get("FULL"))
# Seconds after which the guard puts everything back.
GUARD = 20
PLAYBOOKS = ("playbooks/preflight.yml", "playbooks/network.yml", "playbooks/remote.yml")
STATE = """
sha256sum /etc/ufw/*.rules /etc/ufw/ufw.conf /etc/ufw/before.init /etc/default/ufw /etc/ssh/sshd_config.d/10-*
sha256sum /etc/pi-commerce/firewall/doors.json
stat --format '%a %n' /home/pi/.ssh /home/pi/.ssh/*
"""
full = pytest.mark.skipif(not FULL, reason="takes minutes: `make faults WHAT=lockout` shows it")


def inside(command: str, check: bool = True) -> str:
    """What a command prints on the machine, asked past the network: by the engine that the virtual Pi runs in."""
    container = f"{machine.ENVIRONMENT['PI_NAME']}-pi"
    done = subprocess.run(
        ["docker", "exec", "--interactive", container, "bash", "-s"],
        input=command, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def arguments(variables: Mapping[str, object]) -> tuple[str, ...]:
    """The command of a run."""
    given = json.dumps(dict(variables))
    return ("ansible-playbook", "-i", machine.INVENTORY, *PLAYBOOKS, "-e", given)


def reachable(port: int = 22) -> bool:
    """Whether a new login succeeds."""
    login = machine.ssh("true")
    options = ("-o", "ConnectTimeout=3", "-o", "BatchMode=yes", "-p", str(port))
    return machine.run(login[0], *options, *login[1:], timeout=30).status == 0


def wait_until_reachable() -> None:
    """The machine has to come back by itself."""
    deadline = time.monotonic() + 180
    while not reachable():
        told = "pi-commerce-guard status; ufw status; systemctl status ssh"
        assert time.monotonic() < deadline, inside(told, check=False)
        time.sleep(1)


def status() -> dict[str, object]:
    """What the guard tells."""
    found: dict[str, object] = json.loads(inside("pi-commerce-guard status"))
    return found


def wait_for_armed(armed: bool) -> None:
    """Until the guard is armed, or no longer."""
    deadline = time.monotonic() + 180
    while status()["armed"] is not armed:
        assert time.monotonic() < deadline, status()
        time.sleep(0.2)


@pytest.fixture(scope="module", autouse=True)
def good(first_run: machine.Finished) -> Iterator[None]:
    """The machine as it was set up; in the end it still is."""
    yield
    last = machine.run(*arguments({}))
    assert last.status == 0, last.output[-4000:]
    assert reachable()


@pytest.fixture
def planted() -> Iterator[None]:
    """What a test has planted is taken away again, whatever became of it."""
    yield
    files = [*lockout.HOOKS, "/run/fault", "/run/fault-done", "/etc/ssh/sshd_config.d/05-fault.conf"]
    inside(f"rm -f {' '.join(files)}; systemctl daemon-reload")


def plant(fault: Fault) -> None:
    """Prepare the machine for a fault."""
    script = fault.during.replace("CONTROLLER", f"{machine.NETWORK}.1")
    lines = [fault.before or ":"]
    if script:
        folder = Path(fault.hook).parent
        lines += [
            f"mkdir -p {folder}",
            f"printf %s {shlex.quote(lockout.HOOKS[fault.hook])} > {fault.hook}",
            f"chmod 755 {fault.hook}",
            "systemctl daemon-reload",
            f"printf %s {shlex.quote(script)} > /run/fault",
        ]
    inside("set -eu\n" + "\n".join(lines))


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("name", FAULTS if FULL else lockout.FEW)
def test_machine_is_reachable_again_by_itself_and_the_run_says_why(name: str) -> None:
    fault = FAULTS[name]
    before = inside(STATE)
    plant(fault)
    try:
        finished = machine.run(*arguments({"guard_seconds": GUARD, **fault.variables}))
        wait_until_reachable()
        assert finished.status != 0, finished.output[-4000:]
        assert fault.says in " ".join(finished.output.split()), finished.output[-4000:]
        assert not fault.during or inside("ls /run/fault-done", check=False), "the fault did not happen"
    finally:
        inside(fault.after or ":")
    assert not status()["armed"]
    assert fault.stays or inside(STATE) == before


@full
@pytest.mark.parametrize("variables", [{"firewall_ssh_ports": [2222], "ssh_listening": [2222]}, lockout.RULE])
@pytest.mark.parametrize("power", ["stays", "goes"])
def test_controller_that_dies_before_it_has_proven_anything(variables: Mapping[str, object], power: str) -> None:
    before = inside(STATE)
    with subprocess.Popen(
        arguments({**variables, "guard_seconds": 600 if power == "goes" else GUARD}),
        cwd=machine.ROOT, env=machine.ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as controller:  # fmt: skip
        wait_for_armed(armed=True)
        os.killpg(controller.pid, signal.SIGKILL)
    if power == "goes":
        machine.make("restart")
    wait_for_armed(armed=False)
    wait_until_reachable()
    assert inside(STATE) == before
    report = status()["report"]
    assert isinstance(report, dict)
    assert ("started again" if power == "goes" else "no new connection") in report["why"]


@full
def test_next_run_proves_what_a_killed_one_has_left() -> None:
    with subprocess.Popen(
        arguments({**lockout.RULE, "guard_seconds": 300}),
        cwd=machine.ROOT, env=machine.ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as controller:  # fmt: skip
        wait_for_armed(armed=True)
        os.killpg(controller.pid, signal.SIGKILL)
    again = machine.run(*arguments(lockout.RULE))
    assert again.status == 0, again.output[-4000:]
    assert not status()["armed"]
    assert "4711" in inside("ufw show added")


@full
def test_passwords_stay_where_no_key_opens_the_door() -> None:
    """The run came in before its key was taken away; nothing else would have opened the next connection."""
    inside("echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/05-fault.conf && systemctl reload ssh")
    inside("rm /etc/ssh/sshd_config.d/10-pi-commerce.conf && systemctl reload ssh")
    assert machine.run("ansible", "pis", "-i", machine.INVENTORY, "-m", "ansible.builtin.ping").status == 0
    inside("mv /home/pi/.ssh/authorized_keys /home/pi/.ssh/gone")
    try:
        refused = machine.run(*arguments({}))
    finally:
        inside("mv /home/pi/.ssh/gone /home/pi/.ssh/authorized_keys; rm /etc/ssh/sshd_config.d/05-fault.conf")
    assert refused.status != 0
    assert "No key opens shop-pi from here" in " ".join(refused.output.split()), refused.output[-3000:]
    assert machine.run(*arguments({})).status == 0
    assert "passwordauthentication no" in inside("sshd -T")


@full
def test_socket_that_takes_over_has_its_ports_and_what_is_written_is_proven() -> None:
    ports = "/etc/systemd/system/ssh.socket.d/10-pi-commerce.conf"
    inside(lockout.SOCKET)
    wait_until_reachable()
    try:
        assert machine.recap(machine.run(*arguments({})).output)["changed"] == 0
        inside(f"rm {ports}")
        written = machine.run(*arguments({}))
        assert (written.status, machine.recap(written.output)["changed"]) == (0, 1), written.output[-4000:]
        assert not status()["armed"]
        assert "ListenStream=22" in inside(f"cat {ports}")
        again = machine.run(*arguments({}))
        assert (again.status, machine.recap(again.output)["changed"]) == (0, 0), again.output[-4000:]
        assert reachable()
    finally:
        inside(lockout.SERVICE)


@full
def test_controller_that_has_proven_its_change_is_banned_like_anybody() -> None:
    other = {"firewall_rules": [{"name": "other", "port": 4712, "protocol": "tcp", "exposure": "lan"}]}
    changed = machine.run(*arguments(other))
    assert changed.status == 0, changed.output[-4000:]
    assert "4712" in inside("ufw show added")
    assert f"{machine.NETWORK}.1" not in inside("fail2ban-client get sshd ignoreip").split()


@full
@pytest.mark.parametrize(
    ("owner", "exposure"), [("ssh.service", "lan"), ("ssh.socket", "lan"), ("ssh.service", "public")]
)
def test_port_moves_without_a_moment_in_which_nobody_can_come_in(owner: str, exposure: str) -> None:
    if owner == "ssh.socket":
        inside(lockout.SOCKET)
        wait_until_reachable()
    try:
        moved = machine.run(*arguments({"ssh_port": 2222, "ssh_exposure": exposure}))
        assert moved.status == 0, moved.output[-4000:]
        assert (reachable(2222), reachable(22)) == (True, False)
        # As it is typed, which is text.
        again = machine.run(*arguments({"ssh_exposure": exposure}), "-e", "ssh_port=2222")
        assert (again.status, machine.recap(again.output)["changed"]) == (0, 0), again.output[-4000:]
    finally:
        back = machine.run(*arguments({"ssh_port_before": 2222}))
        inside(lockout.SERVICE)
    assert back.status == 0, back.output[-4000:]
    assert (reachable(2222), reachable(22)) == (False, True)
