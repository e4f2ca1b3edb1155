"""Members of the VPN: who knows whom, by which addresses and keys; what `wg` makes of it, molecule/wireguard shows."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import plays
import pytest
import variables
import wireguard
from ansible.errors import AnsibleFilterError
from wireguard import Machine, Networks, WireguardError

FILTERS = plays.filters("wireguard")
NETWORKS = Networks("10.66.0.0/24", "fd66:66:66::/64")
KEYS = {name: wireguard.new_private_key() for name in ("one", "two", "three", "phone", "site")}
PUBLIC = {name: wireguard.public_key(key) for name, key in KEYS.items()}
ONE = Machine("one", 1, PUBLIC["one"], "one.example")
TWO = Machine("two", 2, PUBLIC["two"], "192.0.2.2", 5000)
# Behind a router.
THREE = Machine("three", 3, PUBLIC["three"])
MACHINES = [ONE, TWO, THREE]
PHONE: dict[str, Any] = {"number": 100, "public_key": PUBLIC["phone"]}
SITE: dict[str, Any] = {
    "number": 101,
    "public_key": PUBLIC["site"],
    "endpoint": "203.0.113.9:51820",
    "networks": ["10.20.0.0/24"],
}
SECRETS = {"one": "secret of one", "two": "secret of two", "three": "secret of three"}


def config(own: Machine, devices: dict[str, Any] | None = None) -> str:
    """What one machine of the three has."""
    devices = {"phone": PHONE} if devices is None else devices
    lower = {name: SECRETS[name] for name, number in (("one", 1), ("two", 2), ("three", 3)) if number <= own.number}
    return wireguard.machine_config(own, wireguard.peers_of(own, MACHINES, devices, lower, NETWORKS), NETWORKS)


def sections(text: str) -> dict[str, dict[str, str]]:
    """[Peer] sections by the name in the comment above, settings by name."""
    found = {}
    for block in re.split(r"\n\n", text)[1:]:
        name, _, *lines = block.strip().splitlines()
        found[name.removeprefix("# ")] = dict(line.split(" = ", 1) for line in lines)
    return found


def test_every_pair_has_one_preshared_key_of_its_own() -> None:
    keys: dict[frozenset[str], set[str]] = {}
    for own in MACHINES:
        for name, peer in sections(config(own)).items():
            keys.setdefault(frozenset({own.name, name}), set()).add(peer["PresharedKey"])
    client = sections(wireguard.client_config("phone", PHONE, KEYS["phone"], [ONE, TWO], SECRETS, NETWORKS))
    for name, peer in client.items():
        keys[frozenset({"phone", name})].add(peer["PresharedKey"])
    assert len(keys) == 6
    assert all(len(both) == 1 for both in keys.values()), "the two ends of a pair differ"
    assert len(set.union(*keys.values())) == 6, "two pairs share a key"
    assert all(wireguard.is_key(key) for both in keys.values() for key in both)


def test_machine_has_addresses_of_the_networks_and_members_one_each() -> None:
    text = config(ONE)
    assert "Address = 10.66.0.1/24\nAddress = fd66:66:66::1/64\nListenPort = 51820\n" in text
    allowed = {name: peer["AllowedIPs"] for name, peer in sections(text).items()}
    assert allowed == {
        "two": "10.66.0.2/32, fd66:66:66::2/128",
        "three": "10.66.0.3/32, fd66:66:66::3/128",
        "phone": "10.66.0.100/32, fd66:66:66::64/128",
    }


def test_site_has_its_networks_besides_and_is_dialled() -> None:
    peer = sections(config(ONE, {"site": SITE}))["site"]
    assert peer["AllowedIPs"] == "10.66.0.101/32, fd66:66:66::65/128, 10.20.0.0/24"
    assert (peer["Endpoint"], peer["PersistentKeepalive"]) == ("203.0.113.9:51820", "25")


def test_who_is_behind_a_router_dials_and_keeps_the_line_open() -> None:
    peers = sections(config(THREE))
    assert (peers["two"]["Endpoint"], peers["two"]["PersistentKeepalive"]) == ("192.0.2.2:5000", "25")
    back = sections(config(TWO))["three"]
    assert not {"Endpoint", "PersistentKeepalive"} & set(back)


def test_name_of_an_endpoint_is_looked_up_apart() -> None:
    peers = wireguard.peers_of(TWO, MACHINES, {}, SECRETS, NETWORKS)
    assert wireguard.endpoints(peers) == f"{PUBLIC['one']} one.example:51820\n"
    assert "one.example" not in wireguard.machine_config(TWO, peers, NETWORKS)
    assert Machine("x", 1, "", "fd00::1").dialled == "[fd00::1]:51820"
    six = wireguard.peers_of(TWO, [ONE._replace(endpoint="fd00::1"), TWO], {}, SECRETS, NETWORKS)
    assert wireguard.endpoints(six) == ""


def test_private_keys_are_never_in_a_machines_configuration() -> None:
    text = config(ONE)
    assert "PrivateKey" not in text
    assert "PostUp = wg set %i private-key /etc/wireguard/wg0.key" in text


def shape(text: str) -> str:
    found = re.search(r"^# shape (\w+)$", text, re.MULTILINE)
    assert found is not None
    assert f"PostUp = echo {found[1]} > /run/pi-commerce-wg0" in text
    return found[1]


def test_shape_changes_with_what_cannot_be_changed_while_it_runs() -> None:
    first = shape(config(ONE))
    assert shape(config(ONE, {})) == first
    assert shape(config(ONE, {"site": SITE})) != first
    assert shape(config(ONE._replace(number=9))) != first
    # A single host is behind a site as a whole network is.
    assert shape(config(ONE, {"site": {**SITE, "networks": ["10.20.0.5/32"]}})) != first


def test_machine_that_was_never_set_up_is_left_out() -> None:
    peers = wireguard.peers_of(ONE, [ONE, TWO._replace(public_key="")], {}, SECRETS, NETWORKS)
    assert peers == []
    # Its vault file is not there yet.
    assert wireguard.peers_of(TWO, [ONE, TWO], {}, {"two": "x"}, NETWORKS) == []


@pytest.mark.parametrize(
    ("machines", "devices", "told"),
    [
        ([ONE, TWO._replace(number=1)], {}, r"one and two have the same number in the VPN \(1\)"),
        ([ONE], {"phone": {**PHONE, "number": 1}}, "one and phone have the same number"),
        ([ONE], {"one": PHONE}, "one and one have the same name"),
        ([ONE], {"phone": PHONE, "tablet": {**PHONE, "number": 7}}, "phone and tablet have the same public key"),
        (
            [ONE],
            {"phone": {**PHONE, "number": 255}},
            r"number 255 does not fit into wireguard_network \(10.66.0.0/24\)",
        ),
        (
            [ONE],
            {"site": SITE, "other": {**PHONE, "networks": ["10.20.0.0/16"]}},
            r"site and other have addresses in common .*change wireguard_peers.other.networks",
        ),
        (
            [ONE],
            {"site": {**SITE, "networks": ["fd66:66:66::/48"]}},
            r"the VPN and site have addresses in common .*change wireguard_peers.site.networks",
        ),
    ],
)
def test_members_that_do_not_fit_together_are_named(machines: Any, devices: Any, told: str) -> None:
    with pytest.raises(WireguardError, match=told):
        wireguard.peers_of(ONE, machines, devices, SECRETS, NETWORKS)


def test_machines_with_one_number_are_refused_before_anything_is_asked_of_them(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all").symlink_to(plays.ROOT / "inventory/virtual/group_vars/all")
    # Nobody listens there.
    nowhere = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    (tmp_path / "hosts.yml").write_text(json.dumps({"pis": {"hosts": {"one": nowhere, "two": nowhere}}}))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", str(tmp_path), "playbooks/preflight.yml"],
        cwd=plays.ROOT,
        env={
            **os.environ,
            "PI_STATE": str(tmp_path),
            "ANSIBLE_CONFIG": str(plays.ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    output = " ".join(done.stdout.split())
    assert "nothing was changed: one and two have the same number in the VPN (1): change wireguard_number" in output
    assert "does not answer SSH" not in output


@pytest.mark.parametrize(
    ("attached", "told"),
    [
        ([], ""),
        (["192.168.7.0/24", "fd12::/64"], ""),
        (["192.168.7.0/24", "10.20.0.0/22"], "this machine and site have addresses in common (10.20.0.0/22"),
        (["10.66.0.0/16"], "this machine and the VPN have addresses in common (10.66.0.0/16"),
    ],
)
def test_networks_of_the_house_stay_in_the_house(attached: list[str], told: str) -> None:
    # Parts of one site may overlap.
    site = {**SITE, "networks": ["10.20.0.0/24", "10.20.0.5/32"]}
    problem = FILTERS["wireguard_problem"]([ONE._asdict()], {"site": site}, list(NETWORKS), attached)
    assert problem.startswith(told)
    assert bool(problem) == bool(told)


def test_second_network_may_be_left_out() -> None:
    alone = Networks("10.66.0.0/24")
    text = wireguard.machine_config(ONE, wireguard.peers_of(ONE, [ONE], {"phone": PHONE}, SECRETS, alone), alone)
    assert ":" not in text.replace("shape:", "")
    assert "AllowedIPs = 10.66.0.100/32\n" in text


def test_client_file_is_ready_or_asks_for_the_devices_own_key() -> None:
    text = wireguard.client_config("phone", PHONE, KEYS["phone"], MACHINES, SECRETS, NETWORKS)
    assert wireguard.private_key_in(text) == KEYS["phone"]
    assert "Address = 10.66.0.100/32, fd66:66:66::64/128\n" in text
    peers = sections(text)
    # The third cannot be dialled.
    assert {name: peer["Endpoint"] for name, peer in peers.items()} == {
        "one": "one.example:51820",
        "two": "192.0.2.2:5000",
    }
    without = wireguard.client_config("phone", PHONE, "", MACHINES, SECRETS, NETWORKS)
    assert wireguard.private_key_in(without) == ""
    with pytest.raises(WireguardError, match="no machine of the VPN can be dialled"):
        wireguard.client_config("phone", PHONE, "", [THREE], SECRETS, NETWORKS)
    with pytest.raises(WireguardError, match="public key of one is not known here"):
        wireguard.client_config("phone", PHONE, "", [ONE._replace(public_key="")], SECRETS, NETWORKS)


def test_site_that_is_dialled_listens_and_takes_calls_of_machines_behind_routers() -> None:
    text = wireguard.client_config("site", SITE, "", MACHINES, SECRETS, NETWORKS)
    assert "ListenPort = 51820\n" in text
    assert set(sections(text)) == {"one", "two", "three"}
    assert "ListenPort" not in wireguard.client_config("phone", PHONE, "", MACHINES, SECRETS, NETWORKS)


def test_public_half_is_what_openssl_says(tmp_path: Path) -> None:
    raw = base64.b64decode(KEYS["one"])
    # PKCS #8 of X25519: a fixed beginning, then the key.
    der = bytes.fromhex("302e020100300506032b656e04220420") + raw
    (tmp_path / "key").write_bytes(der)
    command = ["openssl", "pkey", "-inform", "DER", "-in", str(tmp_path / "key"), "-pubout", "-outform", "DER"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert base64.b64encode(done.stdout[-32:]).decode() == PUBLIC["one"]
    with pytest.raises(WireguardError):
        wireguard.public_key("short")


def test_new_device_gets_the_lowest_free_number() -> None:
    assert wireguard.next_number(MACHINES, {}) == 100
    assert wireguard.next_number(MACHINES, {"phone": PHONE, "x": {"number": 102}}) == 101


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 100},
        {**PHONE, "number": "100"},
        {**PHONE, "number": True},
        {**PHONE, "number": 0},
        {**PHONE, "public_key": "x" * 44},
        {**PHONE, "public_key": PHONE["public_key"][:-2]},
        {**PHONE, "addres": "10.0.0.1"},
        {**PHONE, "endpoint": "no-port"},
        {**PHONE, "networks": ["10.20.0.5/24"]},
        {**PHONE, "networks": ["0.0.0.0/0"]},
        "phone",
    ],
    ids=str,
)
def test_entry_of_a_peer_is_judged(wrong: Any) -> None:
    rule = variables.RULES["wireguard_peers"]
    assert rule.accepts({"phone": PHONE, "site": SITE})
    assert not rule.accepts({"phone": wrong})
    assert not rule.accepts({"Phone 1": PHONE})


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("wireguard_network", ["10.66.0.0/24", "192.168.7.0/30"], ["10.66.0.1/24", "fd00::/64", "10.0.0.0/31", "x"]),
        ("wireguard_network6", ["fd66:66:66::/64", ""], ["10.66.0.0/24", "fd00::1/64"]),
        ("wireguard_endpoint", ["", "shop.example", "192.0.2.1", "fd00::1"], ["shop.example:51820", "https://x"]),
    ],
)
def test_settings_are_judged(name: str, right: list[str], wrong: list[str]) -> None:
    rule = variables.RULES[name]
    assert [value for value in right if not rule.accepts(value)] == []
    assert [value for value in wrong if rule.accepts(value)] == []


@pytest.mark.parametrize("known", [False, True])
def test_machine_that_has_lost_its_key_says_who_has_to_know_the_new_one(tmp_path: Path, known: bool) -> None:
    tell = {
        "ansible.builtin.include_tasks": str(plays.ROOT / "roles/wireguard/tasks/public_key.yml"),
        "vars": {
            "wireguard_folder": str(tmp_path / "wireguard"),
            "_wireguard_known": PUBLIC["two"] if known else "",
            "__wireguard_key": {"stdout_lines": [PUBLIC["one"], "active"]},
        },
    }
    status, output = plays.play(tmp_path, [tell])
    assert status == 0, output
    assert ("localhost has another key than" in output) == known
    assert (tmp_path / "wireguard/localhost.pub").read_text() == PUBLIC["one"] + "\n"


def test_addresses_of_a_member_are_told_alone() -> None:
    assert FILTERS["wireguard_addresses"](7, list(NETWORKS)) == ["10.66.0.7", "fd66:66:66::7"]
    assert FILTERS["wireguard_addresses"]("7", ["10.66.0.0/24", ""]) == ["10.66.0.7"]
    with pytest.raises(AnsibleFilterError, match="number 300 does not fit into wireguard_network "):
        FILTERS["wireguard_addresses"](300, list(NETWORKS))


def test_folder_beside_the_inventory_tells_keys_and_devices(tmp_path: Path) -> None:
    assert FILTERS["wireguard_devices"](str(tmp_path)) == {}
    (tmp_path / "peers.yml").write_text(f"# edited\nphone: {{number: 100, public_key: {PUBLIC['phone']}}}\n")
    (tmp_path / "one.pub").write_text(PUBLIC["one"] + "\n")
    assert FILTERS["wireguard_devices"](str(tmp_path)) == {"phone": PHONE}
    hosts: dict[str, dict[str, Any]] = {
        name: {"wireguard_number": number, "wireguard_endpoint": "", "wireguard_port": 51820}
        for name, number in (("one", 1), ("two", 2))
    }
    own = {"one": {"number": "1", "endpoint": "one.example", "port": "7"}}
    machines = FILTERS["wireguard_machines"](["one", "two"], hosts, str(tmp_path), own)
    assert [(machine["number"], machine["port"]) for machine in machines] == [(1, 7), (2, 51820)]
    assert [machine["public_key"] for machine in machines] == [PUBLIC["one"], ""]
    files = FILTERS["wireguard_files"]("one", machines, {"phone": PHONE}, SECRETS, list(NETWORKS))
    assert [(file["path"], file["mode"]) for file in files] == [("wg0.conf", "0600"), ("endpoints", "0600")]
    assert "secret_content" in files[0]
    with pytest.raises(AnsibleFilterError, match="wireguard_mesh: three is not in it"):
        FILTERS["wireguard_files"]("three", machines, {}, SECRETS, list(NETWORKS))
    for broken in ("a: [", "- a\n"):
        (tmp_path / "peers.yml").write_text(broken)
        with pytest.raises(AnsibleFilterError, match=r"peers\.yml"):
            FILTERS["wireguard_devices"](str(tmp_path))
