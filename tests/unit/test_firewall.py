"""Who may reach what, derived from the catalog and the inventory, and rendered for UFW."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path
from typing import Any

import catalog
import firewall
import network_state
import plays
import pytest
from catalog_samples import TEXTS
from firewall import ufw

PUBLISHED = {
    "service": "proxy",
    "host_ip": "0.0.0.0",  # noqa: S104 - what the catalog has
    "host_port": 443,
    "container_port": 8443,
    "protocol": "tcp",
}
SETTINGS: dict[str, Any] = {
    "published": [{**PUBLISHED, "exposure": "lan"}],
    "ssh": {"ports": [22], "exposure": "lan"},
    "lan": ["192.168.7.0/24"],
    "vpn": {"port": None, "access": []},
    "sources": {},
    "rules": [],
    "groups": {},
    "house": ["192.168.7.0/24"],
    "reach": [],
}
NEIGHBOUR, STRANGER, PEER = "192.168.7.9", "198.51.100.2", "10.66.0.2"
VPN = ["10.66.0.0/24", "fd66:66:66::/64"]


def settings(**changes: Any) -> dict[str, Any]:
    """The settings with some replaced."""
    return {**copy.deepcopy(SETTINGS), **changes}


def plan(address: str, **changes: Any) -> set[tuple[str, int]]:
    """What is open for an address."""
    found = firewall.probe_plan(firewall.doors(settings(**changes)), {"here": address})["here"]
    return {(protocol, port) for protocol, port, _ in found}


def rules(text: str, chain: str) -> list[str]:
    """The rules of a chain, without its name."""
    return [line.removeprefix(f"-A {chain} ") for line in text.splitlines() if line.startswith(f"-A {chain} ")]


def files(**changes: Any) -> dict[str, str]:
    """UFW's files."""
    given = settings(**changes)
    return firewall.files(firewall.doors(given), firewall.ways(given))


def rendered(path: str, **changes: Any) -> str:
    """One of UFW's files."""
    return files(**changes)[path]


def docker(family: str = "", **changes: Any) -> list[str]:
    """What may pass to containers."""
    return rules(rendered(f"ufw/after{family}.rules", **changes), "DOCKER-USER")


def test_neighbours_reach_what_is_for_the_local_network_and_strangers_nothing() -> None:
    assert plan(NEIGHBOUR) == {("tcp", 22), ("tcp", 443)}
    assert plan("fe80::1%eth0") == {("tcp", 22)}
    assert plan(STRANGER) == plan("192.168.8.9") == plan("10.0.0.1") == plan("2001:db8::1") == set()


def test_private_addresses_are_no_local_network() -> None:
    """The house is what the machine is attached to: no rule lets a whole private range in."""
    lines = "".join(files().values()).splitlines()
    coming = [line for line in lines if not line.startswith("-A pi-containers")]
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fd00::/8"):
        assert not any(network in line for line in coming)


def test_public_service_is_open_for_everybody_on_its_own_port() -> None:
    published = [{**PUBLISHED, "exposure": "public"}]
    assert plan(STRANGER, published=published) == {("tcp", 443)}
    assert plan("2001:db8::1", published=published) == set(), "it is bound to an IPv4 address"
    both = [*published, {**PUBLISHED, "host_ip": "::", "exposure": "public"}]
    assert plan("2001:db8::1", published=both) == {("tcp", 443)}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1"])
def test_port_on_loopback_has_no_door(address: str) -> None:
    published = [{**PUBLISHED, "host_ip": address, "exposure": "public"}]
    assert plan(STRANGER, published=published) == set()
    assert not any("ctorigdstport" in rule for family in ("", "6") for rule in docker(family, published=published))


def test_vpn_reaches_what_is_listed_and_what_is_for_it_alone() -> None:
    grafana = {**PUBLISHED, "service": "grafana", "host_port": 3000, "exposure": "vpn", "host_ip": "10.66.0.1"}
    given = files(published=[*SETTINGS["published"], grafana], vpn={"port": 51820, "access": ["ssh"]})
    after, user = (given[f"ufw/{name}.rules"] for name in ("after", "user"))
    by_vpn = [rule for rule in rules(after, "DOCKER-USER") + rules(user, "ufw-user-input") if "-i wg0" in rule]
    assert [re.search(r"port (\d+)", rule)[1] for rule in by_vpn] == ["3000", "22"]  # type: ignore[index]
    assert "--ctorigdst 10.66.0.1 " in by_vpn[0]
    assert plan(STRANGER, vpn={"port": 51820, "access": []}) == {("udp", 51820)}


def test_no_peers_no_port() -> None:
    assert "51820" not in "".join(files(vpn={"port": None, "access": ["ssh"]}).values())


def test_sources_replace_what_the_exposure_says() -> None:
    changes: dict[str, Any] = {
        "published": [{**PUBLISHED, "exposure": "public"}],
        "sources": {"proxy": ["203.0.113.0/24"]},
    }
    assert plan(STRANGER, **changes) == set()
    assert plan("203.0.113.7", **changes) == {("tcp", 443)}


def test_machines_of_a_group_are_open_for_each_other_alone() -> None:
    groups = {"swarm": {"ports": ["2377/tcp", "4789/udp"], "members": ["192.168.7.31"]}}
    assert plan("192.168.7.31", groups=groups) >= {("tcp", 2377), ("udp", 4789)}
    assert plan(NEIGHBOUR, groups=groups) == plan(NEIGHBOUR)
    assert plan("192.168.7.31", groups={"swarm": {"ports": ["2377/tcp"], "members": []}}) == plan(NEIGHBOUR)


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"lan": []}, ["attached to none", "lan_networks"]),
    ({"vpn": {"port": None, "access": ["grafana"]}}, ["access_vpn", "'grafana'", "proxy, ssh"]),
    ({"sources": {"shh": ["10.0.0.0/24"]}}, ["firewall_sources", "'shh'"]),
    ({"groups": {"swarm": {"ports": ["2377/tcp"], "members": ["pi-two"]}}}, ["swarm", "'pi-two'", "ansible_host"]),
    ({"rules": [{"name": "ssh", "port": 23, "protocol": "tcp", "exposure": "public"}]}, ["firewall_rules", "'ssh'"]),
    ({"rules": [{"name": "proxy", "port": 23, "protocol": "tcp", "exposure": "lan"}]}, ["firewall_rules", "'proxy'"]),
    ({"groups": {"swarm": {"ports": ["2377"], "members": ["10.0.0.2"]}}}, ["firewall_group_ports", "'2377'"]),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=lambda value: str(value)[:40])
def test_wrong_settings_are_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(firewall.FirewallError) as refused:
        firewall.doors(settings(**changes))
    for word in words:
        assert word in str(refused.value)


LOCKED_OUT: list[tuple[dict[str, Any], str, list[int], list[str]]] = [
    ({}, STRANGER, [22], [STRANGER, "lan_networks", "ssh_exposure"]),
    ({}, "2001:db8::1", [22], ["2001:db8::1"]),
    ({"ssh": {"ports": [2222], "exposure": "lan"}}, NEIGHBOUR, [22], ["2222", "22", "ssh_port"]),
    ({"ssh": {"ports": [], "exposure": "lan"}}, NEIGHBOUR, [22], ["ssh_port"]),
    ({"ssh": {"ports": [22], "exposure": "vpn"}}, NEIGHBOUR, [22], [NEIGHBOUR, "wg0"]),
    ({"sources": {"ssh": ["203.0.113.7"]}}, NEIGHBOUR, [22], ["203.0.113.7"]),
    ({}, PEER, [22], [PEER]),
]


@pytest.mark.parametrize(("changes", "client", "listening", "words"), LOCKED_OUT, ids=lambda value: str(value)[:40])
def test_rules_that_would_keep_the_run_out_are_seen_before(
    changes: dict[str, Any], client: str, listening: list[int], words: list[str]
) -> None:
    problem = firewall.lockout(firewall.doors(settings(**changes)), client, listening, VPN)
    assert problem
    for word in words:
        assert word in problem


@pytest.mark.parametrize(
    ("peers", "told"), [({"phone": {}}, "in order"), ({}, f"this run comes from {PEER}, which"), ({}, "(but nobody)")]
)
def test_role_refuses_who_came_by_the_vpn_where_nobody_is_in_it_any_more(
    tmp_path: Path, peers: dict[str, Any], told: str
) -> None:
    network = {"attached": ["192.168.7.0/24"], "ssh": {"client": PEER, "ports": [22]}}
    given = {
        "_firewall_network": network,
        "access_vpn": ["ssh"],
        "catalog_data": {"published_ports": []},
        "firewall_group_ports": {},
        "firewall_reach": [],
        "firewall_rules": [],
        "firewall_sources": {},
        "firewall_ssh_ports": [22],
        "lan_networks": [],
        "ssh_exposure": "vpn",
        "wireguard_network": VPN[0],
        "wireguard_peers": peers,
        "wireguard_port": 51820,
    }
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.include_vars": str(plays.ROOT / "roles/firewall/vars/main.yml")},
        {"ansible.builtin.debug": {"msg": "{{ _firewall_problem | trim | default('in order', true) }}"}},
    ]
    status, output = plays.play(tmp_path, tasks, "-e", json.dumps(given))
    assert status == 0, output
    assert told in " ".join(output.split())


@pytest.mark.parametrize("client", [NEIGHBOUR, "fe80::7%wlan0", PEER, ""])
def test_who_may_come_back_is_not_refused(client: str) -> None:
    found = firewall.doors(
        settings(vpn={"port": 51820, "access": ["ssh"]}, ssh={"ports": [22, 2222], "exposure": "lan"})
    )
    assert firewall.lockout(found, client, [22], VPN) == ""


@pytest.mark.parametrize("family", ["", "6"])
def test_what_no_rule_names_is_dropped_on_its_way_to_a_container(family: str) -> None:
    passing = docker(family)
    assert passing[-1] == "-j DROP"
    letting = [rule for rule in passing if re.search("-[jg] (RETURN|pi-containers)$", rule)]
    assert [rule for rule in letting if "ctorigdstport" not in rule] == [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "-i docker0 -g pi-containers",
        "-i br-+ -g pi-containers",
    ]


@pytest.mark.parametrize(
    ("family", "house", "closed"),
    [
        ("", ["192.168.7.0/24"], "192.168.0.0/16"),
        ("", ["203.0.113.0/28"], "203.0.113.0/28"),
        ("6", ["2001:db8:7::/64"], "2001:db8:7::/64"),
        ("6", [], "fe80::/10"),
    ],
)
def test_container_goes_to_the_internet_and_not_into_the_house(family: str, house: list[str], closed: str) -> None:
    going = rules(rendered(f"ufw/after{family}.rules", house=house), "pi-containers")
    assert f"-d {closed} -g pi-refused" in going
    assert len(going) == len(set(going))
    # What names are asked of, and other containers, come before what is refused.
    allowed = [number for number, rule in enumerate(going) if rule.endswith("-j RETURN")]
    assert max(allowed) < min(number for number, rule in enumerate(going) if rule.endswith("-g pi-refused"))
    assert "-j REJECT" in rules(rendered(f"ufw/after{family}.rules"), "pi-refused")[-1]


@pytest.mark.parametrize("family", ["", "6"])
def test_container_reaches_nothing_of_the_machine_itself_whoever_else_may(family: str) -> None:
    before = rules(rendered(f"ufw/before{family}.rules"), f"ufw{family}-before-input")
    for bridge in ("docker0", "br-+", "pi-edge"):
        assert f"-i {bridge} -j DROP" in before
    # What lets everybody in comes later.
    dropped = max(number for number, rule in enumerate(before) if rule.startswith("-i ") and rule.endswith("DROP"))
    assert [rule for rule in before[:dropped] if rule.endswith("-j ACCEPT")] == [
        "-i lo -j ACCEPT",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]


def test_container_reaches_in_the_house_what_is_named() -> None:
    printer = {"name": "printer", "network": "192.168.7.20", "port": 9100, "protocol": "tcp"}
    nas = {"name": "nas", "network": "fd12::/64", "port": 443, "protocol": "tcp"}
    given = files(reach=[printer, nas])
    four, six = (rules(given[f"ufw/after{family}.rules"], "pi-containers") for family in ("", "6"))
    assert "-d 192.168.7.20 -p tcp --dport 9100 -j RETURN" in four
    assert "-d fd12::/64 -p tcp --dport 443 -j RETURN" in six
    assert not any("9100" in rule for rule in six + docker())


def test_port_of_a_container_is_matched_as_the_visitor_asked_for_it() -> None:
    """The destination was exchanged already: the container's own port would match any container's."""
    rule = docker()[3]
    assert rule == "-s 192.168.7.0/24 -p tcp -m conntrack --ctstate DNAT --ctdir ORIGINAL --ctorigdstport 443 -j RETURN"


def test_who_proves_a_change_of_public_ssh_is_not_taken_for_one_who_guesses() -> None:
    """Moving to another port takes six connections within seconds."""
    public = rendered("ufw/user.rules", ssh={"ports": [22], "exposure": "public"})
    assert "### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=737368" in public
    assert "-A ufw-user-input -p tcp --dport 22 -j ACCEPT" in public
    assert "-m recent" not in public


def test_port_that_was_given_as_text_too_is_one_door() -> None:
    rules = rendered("ufw/user.rules", ssh={"ports": [2222, "2222"], "exposure": "lan"})
    assert rules.count("### tuple ### allow tcp 2222") == 1


def test_firewall_is_switched_on_by_the_last_file() -> None:
    written = files()
    assert list(written)[-1] == "ufw/ufw.conf"
    assert [path for path, text in written.items() if "ENABLED=yes" in text] == ["ufw/ufw.conf"]
    assert {"before", "before6", "after", "after6", "user", "user6"} <= {path[4:-6] for path in written}


@pytest.mark.parametrize(
    "path", [f"ufw/{name}{six}.rules" for name, six in itertools.product(("before", "after", "user"), ("", "6"))]
)
def test_every_chain_is_declared_or_ufws_own(path: str) -> None:
    text = rendered(path, vpn={"port": 51820, "access": ["ssh", "proxy"]})
    declared = set(re.findall(r"^:(\S+) ", text, flags=re.MULTILINE))
    prefix = "ufw6" if "6" in path else "ufw"
    # ufw-init makes these before it reads the files.
    declared |= {
        f"{prefix}-skip-to-policy-input",
        f"{prefix}-logging-deny",
        "ACCEPT",
        "DROP",
        "REJECT",
        "LOG",
        "RETURN",
    }
    used = set(re.findall(r"-[AI] (\S+)", text)) | set(re.findall(r"-[jg] (\S+)", text))
    assert used <= declared
    assert text.endswith("COMMIT\n")


def test_loopback_is_closed_for_the_neighbours_of_older_engines() -> None:
    assert "raw -I PREROUTING ! -i lo -d" in ufw.BEFORE_INIT
    assert "iptables 127.0.0.0/8" in ufw.BEFORE_INIT


def test_rules_follow_the_files_of_the_catalog() -> None:
    """What a file publishes is open, less what it binds to loopback; without the file there is no door."""
    rows = catalog.as_dict(catalog.load(TEXTS, list(TEXTS), "lean"))["published_ports"]
    assert {row["host_port"] for row in rows} > {8443}
    assert plan(NEIGHBOUR, published=rows) == {("tcp", 22), ("tcp", 8443)}
    assert plan(NEIGHBOUR, published=[]) == {("tcp", 22)}


def in_force(written: dict[str, str]) -> dict[str, str]:
    """What iptables would print of rules that are all at work."""
    found = {}
    for family, six in network_state.FAMILIES.items():
        found[family] = "\n".join(
            [
                "-P INPUT DROP",
                "-P FORWARD DROP",
                f"-A INPUT -j ufw{six}-before-logging-input",
                "-A FORWARD -j DOCKER-USER",
                f"-A PREROUTING -d {network_state.LOOPBACK[family]} ! -i lo -j DROP",
                *(line for line in written[family].splitlines() if line.startswith("-A ")),
                f"-A ufw{six}-before-input -j ufw{six}-user-input",
            ]
        )
    return found


def test_rules_in_force_are_as_they_are_written() -> None:
    given = files()
    written = {
        family: "".join(given[f"ufw/{name}{six}.rules"] for name in network_state.CHAINS)
        for family, six in network_state.FAMILIES.items()
    }
    assert network_state.firewall_problems(in_force(written), written) == []
    for gone in (
        "-P FORWARD DROP",
        "-A FORWARD -j DOCKER-USER",
        "-A INPUT -j ufw-before-logging-input",
        "-A PREROUTING -d 127.0.0.0/8 ! -i lo -j DROP",
        "-A ufw-before-input -i docker0 -j DROP",
        "-A ufw-before-input -j ufw-user-input",
        "-A ufw-user-input -p tcp --dport 22 -s 192.168.7.0/24 -j ACCEPT",
        "-A DOCKER-USER -j DROP",
        "-A pi-containers -d 10.0.0.0/8 -g pi-refused",
        "-A pi-refused -j REJECT --reject-with icmp-admin-prohibited",
    ):
        found = in_force(written)
        assert f"{gone}\n" in found["ip"] + "\n", gone
        found["ip"] = (found["ip"] + "\n").replace(f"{gone}\n", "")
        assert len(network_state.firewall_problems(found, written)) == 1, gone
    opened = in_force(written)
    opened["ip6"] = "-A INPUT -j ACCEPT\n" + opened["ip6"]
    assert "INPUT" in network_state.firewall_problems(opened, written)[0]
