"""What is open from outside, looked at from the house and from afar, is exactly what the catalog declares."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import firewall
import machine
import probe
import pytest
import virtual_pi

FULL = bool(os.environ.get("FULL"))
full = pytest.mark.skipif(not FULL, reason="takes minutes: `make faults WHAT=lockout` shows it")
SERVE = (
    "import http.server as h, socket; h.HTTPServer.address_family = socket.{}; "
    "h.HTTPServer(('', {}), h.SimpleHTTPRequestHandler).serve_forever()"
)
# Of the machine itself, for both families.
LISTENER = f'systemd-run --quiet --unit probe-listener python3 -c "{SERVE.format("AF_INET6", 8001)}"'
# Containers that publish what nobody has declared, one on a bridge whose name is not Docker's, and a process.
DECOYS = f"""
set -eu
image=$(docker inspect --format '{{{{.Config.Image}}}}' pi-commerce-rate_limiter-1)
docker network create --opt com.docker.network.bridge.name=house0 probe-decoys >/dev/null
start() {{
  docker run --detach --restart unless-stopped --name "$@" "$image" \\
    python3 -c "{SERVE.format("AF_INET", 8000)}" >/dev/null
}}
start probe-decoy --publish 0.0.0.0:5432:8000
start probe-decoy-bridge --network probe-decoys --publish 0.0.0.0:5433:8000
start probe-decoy-loopback --publish 127.0.0.1:5434:8000
{LISTENER}
"""
AWAY = """
docker rm --force probe-decoy probe-decoy-bridge probe-decoy-loopback
docker network rm probe-decoys
systemctl stop probe-listener
"""
ORDERS = {
    "as it is": "true",
    "ufw reload": "ufw reload",
    "engine restarted": "systemctl restart docker",
    "reload, then engine": "ufw reload && systemctl restart docker",
    "engine, then reload": "systemctl restart docker && ufw reload",
}


@pytest.fixture(scope="module")
def outside(first_run: machine.Finished) -> Iterator[probe.Outside]:
    """Somebody outside, and decoys inside."""
    environment = machine.ENVIRONMENT
    settings = virtual_pi.Settings(
        state=Path(environment["PI_STATE"]).resolve(),
        name=environment["PI_NAME"],
        network=environment["PI_NETWORK"],
        suite=environment.get("PI_SUITE", "trixie"),
        arch=environment.get("ARCH", "amd64"),
        memory="4g",
    )
    machine.pi(DECOYS)
    try:
        with probe.outside(settings) as there:
            yield there
    finally:
        machine.pi(AWAY)


def settle() -> None:
    """Wait until the decoys serve again, as the machine itself sees them, and the entrance."""
    inside = "import socket; [socket.create_connection(('127.0.0.1', port), 2).close() for port in (5434, 8001)]"
    deadline = time.monotonic() + 120
    while "done" not in machine.pi(
        f'python3 -c "{inside}" && docker exec probe-decoy-bridge true && echo done', check=False
    ):
        assert time.monotonic() < deadline, machine.pi("docker ps --all; systemctl status probe-listener", check=False)
        time.sleep(0.5)
    while machine.request("/proxy-health").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_what_is_declared_is_no_more_than_a_shop_needs(outside: probe.Outside) -> None:
    """Said here once more, because the list that the probe goes by follows from the same source as the rules."""
    places = {place: own for place, (own, _) in outside.places.items()}
    plan = firewall.probe_plan(outside.declared(), places)
    found = {place: {(kind, port) for kind, port, _ in rows} for place, rows in plan.items()}
    assert found == {
        "neighbour": {("tcp", 22), ("tcp", 443)},
        "stranger": set(),
        "neighbour, IPv6": {("tcp", 22)},
        "stranger, IPv6": set(),
    }


@pytest.mark.parametrize("order", ORDERS if FULL else ["reload, then engine"])
def test_exactly_what_is_declared_is_open(outside: probe.Outside, order: str) -> None:
    machine.pi(ORDERS[order])
    settle()
    assert outside.differences() == []


def test_neighbour_does_not_reach_what_is_published_on_loopback(outside: probe.Outside) -> None:
    card = machine.pi("cat /sys/class/net/eth0/address").strip()
    arguments = ("--through", card, "5434")
    assert outside.scan("neighbour", *arguments, target="127.0.0.1") == {"tcp": []}
    # Without both rules, Docker's older engines pass it on; newer ones have one of their own.
    machine.pi("iptables -w -t raw -D PREROUTING ! -i lo -d 127.0.0.0/8 -j DROP")
    machine.pi("iptables -w -I DOCKER-USER -j RETURN")
    try:
        version = int(machine.pi("docker version --format '{{.Server.Version}}'").split(".")[0])
        assert (outside.scan("neighbour", *arguments, target="127.0.0.1")["tcp"] == [5434]) == (version < 28)
    finally:
        machine.pi("ufw reload")
    assert outside.scan("neighbour", *arguments, target="127.0.0.1") == {"tcp": []}


# Somebody in the house who is asked on two ports, and who also has an address afar.
LISTEN = """
import http.server, threading
for port in (53, 8002):
    server = http.server.HTTPServer(("", port), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever).start()
"""
NAMES, ANYTHING, AFAR = ("house", 53), ("house", 8002), ("afar", 8002)
# From whom what is reached: the machine itself, containers of the catalog, and some that were started by hand.
REACHED = {
    "": {NAMES, ANYTHING, AFAR},
    "pi-commerce-n8n-1": {NAMES, AFAR},
    "pi-commerce-proxy-1": set(),
    "pi-commerce-postgres-1": set(),
    "pi-commerce-redis-1": set(),
    "pi-commerce-rate_limiter-1": set(),
    "pi-commerce-webhook_handler-1": set(),
    "pi-commerce-posting_queue-1": set(),
    "probe-decoy": {NAMES, AFAR},
    "probe-decoy-bridge": set(),
}


def reached(outside: probe.Outside, container: str) -> set[tuple[str, int]]:
    """To whom a connection succeeds from a container's own network, or from the machine's (empty)."""
    addresses = {"house": f"{machine.NETWORK}.30", "afar": f"{probe.FAR}.30"}
    enter = f"nsenter --target $(docker inspect --format '{{{{.State.Pid}}}}' {container}) --net" if container else ""
    script = "".join(
        f"{enter} timeout 3 bash -c '</dev/tcp/{addresses[place]}/{port}' 2>/dev/null && echo {place} {port}\n"
        for place, port in (NAMES, ANYTHING, AFAR)
    )
    return {(place, int(port)) for place, port in map(str.split, machine.pi(f"{script}true").splitlines())}


def test_containers_reach_the_internet_and_not_the_house(outside: probe.Outside) -> None:
    outside.prober.exec_run(["python3", "-c", LISTEN], detach=True)
    deadline = time.monotonic() + 30
    while reached(outside, "") != REACHED[""]:
        assert time.monotonic() < deadline, "nobody listens outside"
        time.sleep(0.3)
    assert {container: reached(outside, container) for container in REACHED} == REACHED


def test_probe_names_the_culprit_and_the_door_that_does_not_answer(
    outside: probe.Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it looks for would be found: a rule by hand, and a chain of Docker's that lets everything pass."""
    doors = outside.declared()
    ghost = dataclasses.replace(doors[0], name="ghost", port=4711)
    monkeypatch.setattr(outside, "declared", lambda: [*doors, ghost])
    machine.pi("ufw allow 8001/tcp && iptables -w -I DOCKER-USER -j RETURN")
    try:
        settle()
        problems = outside.differences()
    finally:
        machine.pi("ufw --force delete allow 8001/tcp && ufw reload")
    for port, culprit in ((5432, "container probe-decoy"), (5433, "container probe-decoy-bridge"), (8001, "python3")):
        for place in ("neighbour", "stranger"):
            assert any(f"{place}: {port}/tcp is open" in line and culprit in line for line in problems), problems
    assert any("IPv6: 8001/tcp is open" in line for line in problems), problems
    assert any("4711/tcp (ghost) is declared and does not answer" in line for line in problems), problems


# An intruder asks for nothing and has never met this host, whose key is not what is looked at here.
OPTIONS = "-o BatchMode=yes -o StrictHostKeyChecking=no -o ConnectTimeout=3"
# Somebody in the house who tries names and passwords; a ban in the middle of a connection leaves it waiting for ever.
INTRUDE = f"for one in $(seq 8); do timeout 10 ssh {OPTIONS} any@{{}}; done"


def test_who_tries_passwords_is_kept_out_of_the_machine_and_its_containers(outside: probe.Outside) -> None:
    """The ban comes before INPUT and before DOCKER-USER, and neither knows the banned address."""
    neighbour = outside.places["neighbour"][0]

    def reaches() -> list[bool]:
        knock = (["timeout", "3", "bash", "-c", f"</dev/tcp/{machine.ADDRESS}/{port}"] for port in (22, 443))
        return [outside.prober.exec_run(command).exit_code == 0 for command in knock]

    assert reaches() == [True, True]
    outside.prober.exec_run(["bash", "-c", INTRUDE.format(machine.ADDRESS)])
    deadline = time.monotonic() + 60
    while neighbour not in machine.pi("fail2ban-client get sshd banip"):
        assert time.monotonic() < deadline, machine.pi("journalctl --unit fail2ban --lines 30")
        time.sleep(0.3)
    assert reaches() == [False, False]
    machine.pi("ufw reload")
    assert reaches() == [False, False]
    machine.pi(f"fail2ban-client set sshd unbanip {neighbour}")
    assert reaches() == [True, True]


@full
def test_it_is_so_after_a_reboot(outside: probe.Outside) -> None:
    machine.make("restart")
    probe.connect(outside.pi)
    machine.pi(LISTENER)
    settle()
    assert outside.differences() == []
