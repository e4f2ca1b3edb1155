"""Nothing gets in that the rules do not name, to the machine or to a container, whoever restarts what."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

ADDRESS = os.environ["PI_ADDRESS"]
# A process of the machine, a container that publishes everywhere, one on the port that the catalog declares.
DECOYS = {5432: "decoy", 443: "declared"}
READY = "import socket; [socket.create_connection(('127.0.0.1', port), 2).close() for port in (8096, 8097)]"
SERVE = "import http.server as h; h.HTTPServer(('', {port}), h.SimpleHTTPRequestHandler).serve_forever()"


def answers(port: int) -> bool:
    """Whether a connection from here succeeds; a port that drops takes the whole time."""
    try:
        with socket.create_connection((ADDRESS, port), timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def decoys(host: Host, variables: dict[str, Any]) -> Iterator[None]:
    """What listens without being declared, and what is declared."""
    image = variables["images"]["python"]
    for port, name in DECOYS.items():
        publish = f"--publish 0.0.0.0:{port}:8000 --restart unless-stopped"
        host.check_output(
            "docker run --detach --name %s " + publish + " %s python3 -c %s", name, image, SERVE.format(port=8000)
        )
    for port in (8096, 8097):
        unit = f"--unit molecule-listener-{port}"
        host.check_output(f"systemd-run --quiet {unit} python3 -c %s", SERVE.format(port=port))
    try:
        deadline = time.monotonic() + 60
        while host.run("python3 -c %s", READY).rc:
            assert time.monotonic() < deadline, "the decoys do not listen"
            time.sleep(0.3)
        yield
    finally:
        host.check_output("docker rm --force decoy declared")
        host.check_output("systemctl stop molecule-listener-8096 molecule-listener-8097")


def expected(variables: dict[str, Any]) -> dict[int, bool]:
    """What has to answer from the controller, which is a neighbour."""
    return {
        22: True,
        443: not variables["firewall_sources"],
        5432: False,
        8096: False,
        8097: bool(variables["firewall_rules"]),
    }


def test_exactly_what_is_declared_answers(decoys: None, variables: dict[str, Any]) -> None:
    assert {port: answers(port) for port in expected(variables)} == expected(variables)


def test_unit_that_starts_it_runs_before_any_restart(host: Host) -> None:
    assert host.check_output("systemctl is-active ufw.service; systemctl is-enabled ufw.service") == "active\nenabled"


@pytest.mark.parametrize(
    "command",
    [
        "ufw reload",
        "systemctl restart docker",
        "ufw reload && systemctl restart docker",
        "systemctl restart docker && ufw reload",
        "systemctl restart ufw",
        "systemctl stop docker && ufw reload && systemctl start docker",
    ],
)
def test_it_stays_so_whoever_restarts_what(host: Host, decoys: None, variables: dict[str, Any], command: str) -> None:
    # systemd does not start a unit again that was started three times in a minute.
    host.check_output("systemctl reset-failed docker")
    host.check_output(command)
    deadline = time.monotonic() + 60
    while host.run("docker exec decoy true && docker exec declared true").rc:
        assert time.monotonic() < deadline, "the containers are not back"
        time.sleep(0.3)
    assert {port: answers(port) for port in expected(variables)} == expected(variables)


def test_decoy_would_be_open_without_the_rules(host: Host, decoys: None) -> None:
    """What keeps it shut is DOCKER-USER, and the test would notice."""
    host.check_output("iptables -w -I DOCKER-USER -j RETURN")
    try:
        assert answers(5432)
    finally:
        host.check_output("iptables -w -D DOCKER-USER -j RETURN")
    assert not answers(5432)


def test_chain_is_asked_first_also_where_it_was_taken_out(
    apply: Any, host: Host, decoys: None, variables: dict[str, Any]
) -> None:
    """An engine that keeps its containers running over its restart would not see to it."""
    host.check_output("iptables -w -D FORWARD -j DOCKER-USER")
    assert answers(5432)
    again(apply, variables)
    assert not answers(5432)


def test_ufw_rewrites_its_rules_byte_by_byte(host: Host) -> None:
    rules = "sha256sum /etc/ufw/user.rules /etc/ufw/user6.rules"
    before = host.check_output(rules)
    host.check_output("ufw reload")
    assert host.check_output(rules) == before


def test_reload_adds_nothing_twice(host: Host) -> None:
    count = "{ iptables-save; ip6tables-save; } | grep -c ^-A"
    host.check_output("ufw reload")
    before = host.check_output(count)
    host.check_output("ufw reload")
    assert host.check_output(count) == before


def test_ufw_shows_what_is_open(host: Host, variables: dict[str, Any]) -> None:
    added = host.check_output("ufw show added")
    assert re.search(r"^ufw (allow 22/tcp|allow from \S+ to any port 22 proto tcp) comment 'ssh'$", added, re.MULTILINE)
    assert ("allow 22/tcp" in added) == (variables["ssh_exposure"] == "public")
    verbose = host.check_output("ufw status verbose")
    assert "deny (incoming), allow (outgoing), deny (routed)" in verbose


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_policies_are_closed_for_both_families(host: Host, program: str) -> None:
    rules = host.check_output(f"{program} -w -S").splitlines()
    assert {"-P INPUT DROP", "-P FORWARD DROP", "-P OUTPUT ACCEPT"} <= set(rules)
    passing = [rule for rule in rules if rule.startswith("-A DOCKER-USER")]
    # An older engine adds one more behind it, where nothing comes any more.
    assert "-A DOCKER-USER -j DROP" in passing[-2:]


def again(apply: Any, variables: dict[str, Any]) -> None:
    """Apply the role once more, as the scenario does."""
    names = ("ssh_exposure", "access_vpn", "lan_networks", "guard_seconds")
    given = {name: value for name, value in variables.items() if name in names or name.startswith("firewall_")}
    done = apply("firewall", **given)
    assert done.returncode == 0, done.stdout[-3000:]


def test_rules_that_somebody_took_out_come_back_with_the_next_run(
    apply: Any, host: Host, variables: dict[str, Any]
) -> None:
    host.check_output("iptables -w -F DOCKER-USER && ip6tables -w -P INPUT ACCEPT")
    again(apply, variables)
    assert "-A DOCKER-USER -j DROP" in host.check_output("iptables -w -S DOCKER-USER")
    assert "-P INPUT DROP" in host.check_output("ip6tables -w -S INPUT")


def test_loopback_is_closed_for_neighbours(host: Host) -> None:
    assert "! -i lo" in host.check_output("iptables -w -t raw -S PREROUTING | grep 127.0.0.0/8")


def test_kernel_settings_of_role_base_stay(host: Host) -> None:
    host.check_output("sysctl -qw net.ipv4.conf.all.rp_filter=2")
    host.check_output("ufw reload")
    assert host.check_output("sysctl -n net.ipv4.conf.all.rp_filter") == "2"


def test_rules_that_would_keep_the_run_out_are_refused_before(apply: Any, host: Host) -> None:
    before = host.check_output("sha256sum /etc/ufw/*.rules")
    for variables, words in (
        ({"firewall_sources": {"ssh": ["192.0.2.1"]}}, "which the rules do not let in by SSH"),
        ({"firewall_ssh_ports": [2222]}, "the server listens on 22"),
        ({"ssh_exposure": "vpn"}, "set ssh_exposure"),
    ):
        refused = apply("firewall", **variables)
        assert refused.returncode != 0
        assert words in refused.stdout, refused.stdout[-2000:]
    assert host.check_output("sha256sum /etc/ufw/*.rules") == before


def test_rule_typed_by_hand_is_undone_by_the_next_run(apply: Any, host: Host, variables: dict[str, Any]) -> None:
    host.check_output("ufw allow 8096/tcp")
    assert "8096" in host.check_output("ufw show added")
    again(apply, variables)
    assert "8096" not in host.check_output("ufw show added")


def test_container_reaches_in_the_house_what_is_named_and_is_told_so_at_once(
    apply: Any, host: Host, decoys: None, variables: dict[str, Any]
) -> None:
    house = f"{ADDRESS.rpartition('.')[0]}.1"
    with socket.create_server((house, 0)) as server:
        port = server.getsockname()[1]
        connect = f"timeout 5 bash -c '</dev/tcp/{house}/{port}'"
        inside = f"nsenter --target $(docker inspect --format '{{{{.State.Pid}}}}' decoy) --net {connect}"
        named = {"name": "printer", "network": house, "port": port, "protocol": "tcp"}
        assert host.run(connect).rc == 0
        assert host.run(inside).rc == 1, "124 would say that nobody has answered"
        again(apply, {**variables, "firewall_reach": [named]})
        assert host.run(inside).rc == 0
        again(apply, variables)
        assert host.run(inside).rc == 1


def test_rules_in_the_older_tables_are_refused(apply: Any, host: Host) -> None:
    if host.run("iptables-legacy -w -A INPUT -s 192.0.2.200 -j DROP").rc:
        pytest.skip("this kernel has no older tables, so nobody can put a rule there")
    try:
        refused = apply("firewall")
        assert refused.returncode != 0
        assert "iptables-legacy-save" in refused.stdout
    finally:
        host.check_output("iptables-legacy -w -D INPUT -s 192.0.2.200 -j DROP")


def test_engine_that_bypasses_the_firewall_is_refused(apply: Any, host: Host) -> None:
    settings = host.file("/etc/docker/daemon.json").content_string
    without = json.dumps({**json.loads(settings), "iptables": False, "icc": True})
    restart = "systemctl reset-failed docker; systemctl restart docker"
    host.check_output("systemctl stop docker docker.socket && iptables -w -F FORWARD && iptables -w -F DOCKER")
    host.check_output("iptables -w -X DOCKER")
    try:
        host.check_output("printf %s > /etc/docker/daemon.json && " + restart, without)
        refused = apply("firewall")
        assert refused.returncode != 0
        assert "has no rules in the tables of iptables" in " ".join(refused.stdout.split())
    finally:
        host.check_output("printf %s > /etc/docker/daemon.json && " + restart, settings)
        host.check_output("ufw reload")
